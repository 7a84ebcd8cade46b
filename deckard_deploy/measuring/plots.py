"""The pictures of a report: PNG, by matplotlib, which is an optional extra."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.measuring.baselines import Baseline
from deckard_deploy.measuring.figures import Row, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by every kind of eye, and in print.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
DPI = 144


def pictures(rows: Sequence[Row], published: Baseline | None = None) -> dict[str, bytes]:
    """PNG by name, in the order of a report; what was not measured has none. Raises EnvironmentUnfitError."""
    drawn = {
        "throughput": _picture(lambda axes: _throughput(axes, rows, published)),
        "latency": _latency(rows),
    }
    if any(row.by_position for row in rows):
        drawn["acceptance"] = _picture(lambda axes: _acceptance(axes, rows))
    if any(row.reached for row in rows):
        drawn["roofline"] = _picture(lambda axes: _roofline(axes, rows))
    return drawn


def _figure(columns: int) -> "tuple[Figure, Sequence[Axes]]":
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra, and half a second
    except ImportError as error:
        raise EnvironmentUnfitError(
            f"the plots need {error.name}", hint="pip install 'deckard-deploy[report]'"
        ) from error
    figure = Figure(figsize=(8.0, 3.6), dpi=DPI, layout="constrained")
    axes = [figure.add_subplot(1, columns, number + 1) for number in range(columns)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(visible=True, color="#dddddd", linewidth=0.7)
        each.set_axisbelow(True)
    return figure, axes


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _picture(draw: "Callable[[Axes], None]") -> bytes:
    figure, (axes,) = _figure(1)
    draw(axes)
    return _png(figure)


def _throughput(axes: "Axes", rows: Sequence[Row], published: Baseline | None) -> None:
    _curve(axes, rows, [row.tokens_per_s for row in rows], BLUE, "all requests together")
    _curve(axes, rows, [row.each for row in rows], ORANGE, "one request")
    known = [
        (row.concurrency, row.ceiling.tokens_per_s)
        for row in rows
        if row.ceiling and row.ceiling.tokens_per_s
    ]
    if known:
        axes.plot(*zip(*known, strict=True), color=GREY, linestyle="--", label="roofline, without a drafter")
    if published:
        points = [(row.concurrency, row.tokens_per_s) for row in published.rows]
        axes.plot(
            *zip(*points, strict=True), "D", color=GREEN, label=f"published, all together: {published.title}"
        )
    axes.set_ylabel("tokens per second")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    _concurrency(axes, {row.concurrency for row in rows} | (set(published.speeds) if published else set()))
    axes.legend(frameon=False, loc="upper left")


def _latency(rows: Sequence[Row]) -> bytes:
    figure, (first, between) = _figure(2)
    panels = (
        (first, "time to the first token", [row.ttft for row in rows], [row.ttft_p99 for row in rows]),
        (between, "between two chunks of a stream", [row.itl for row in rows], [row.itl_p99 for row in rows]),
    )
    for axes, title, middle, tail in panels:
        _curve(axes, rows, middle, BLUE, "median")
        _curve(axes, rows, tail, ORANGE, "99th percentile")
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_ylabel("milliseconds")
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
        _concurrency(axes, {row.concurrency for row in rows})
    first.legend(frameon=False, loc="upper left")
    return _png(figure)


def _acceptance(axes: "Axes", rows: Sequence[Row]) -> None:
    drafted = [row for row in rows if row.by_position]
    width = 0.8 / len(drafted)
    for number, row in enumerate(drafted):
        places = [
            place + 1 + (number - (len(drafted) - 1) / 2) * width for place in range(len(row.by_position))
        ]
        shade = 0.35 + 0.65 * (number + 1) / len(drafted)
        heights = [100 * rate for rate in row.by_position]
        axes.bar(places, heights, width * 0.92, color=BLUE, alpha=shade, label=f"{row.concurrency} at once")
    axes.set_xticks(range(1, 1 + max(len(row.by_position) for row in drafted)))
    axes.set_xlabel("position in the draft")
    axes.set_ylabel("accepted, % of drafts")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, ncols=len(drafted), loc="upper right", fontsize=8)


def _roofline(axes: "Axes", rows: Sequence[Row]) -> None:
    known = [(str(row.concurrency), 100 * row.reached) for row in rows if row.reached]
    bars = axes.bar([name for name, _ in known], [share for _, share in known], width=0.6, color=BLUE)
    over_the_line = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    axes.bar_label(bars, fmt="%.0f %%", padding=3, bbox=over_the_line)
    axes.axhline(100, color=GREY, linestyle="--")
    axes.set_xlabel("requests at once")
    axes.set_ylabel("% of the roofline")
    axes.set_ylim(0, max(110.0, 1.15 * max(share for _, share in known)))


def _curve(axes: "Axes", rows: Sequence[Row], spreads: Sequence[Spread], colour: str, label: str) -> None:
    """Medians, and bars from the least run to the most."""
    below = [spread.median - spread.low for spread in spreads]
    above = [spread.high - spread.median for spread in spreads]
    places, middles = [row.concurrency for row in rows], [spread.median for spread in spreads]
    axes.errorbar(
        places, middles, yerr=(below, above), fmt="o-", color=colour, capsize=3, markersize=4, label=label
    )


def _concurrency(axes: "Axes", numbers: set[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(numbers), [str(number) for number in sorted(numbers)])
    axes.minorticks_off()
    axes.set_xlabel("requests at once")
