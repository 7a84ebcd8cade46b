"""The pictures of a report: PNG, by matplotlib, which is an optional extra."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.measuring.baselines import Baseline
from deckard_deploy.measuring.figures import Row, Spread
from deckard_deploy.system.extras import install_command

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: distinct for colour-blind readers, and in print.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
DPI = 144


def pictures(rows: Sequence[Row], published: Baseline | None = None) -> dict[str, bytes]:
    """Return PNG files by name, in the order of a report. Raises EnvironmentUnfitError without matplotlib.

    A picture whose figures were not measured is left out.
    """
    drawn = {"throughput": _throughput(rows, published), "latency": _latency(rows)}
    drafted = [row for row in rows if row.by_position]
    if drafted:
        drawn["acceptance"] = _acceptance(drafted)
    if any(row.reached for row in rows):
        drawn["roofline"] = _roofline(rows)
    return drawn


def _figure(columns: int) -> "tuple[Figure, Sequence[Axes]]":
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra, and half a second
    except ImportError as error:
        raise EnvironmentUnfitError(f"the plots need {error.name}", hint=install_command("report")) from error
    figure = Figure(figsize=(8.0, 3.6), dpi=DPI, layout="constrained")
    panels = []
    for column in range(columns):
        axes = figure.add_subplot(1, columns, column + 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
        panels.append(axes)
    return figure, panels


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _throughput(rows: Sequence[Row], published: Baseline | None) -> bytes:
    figure, (axes,) = _figure(1)
    _curve(axes, rows, lambda row: row.tokens_per_s, BLUE, "all requests together")
    _curve(axes, rows, lambda row: row.each, ORANGE, "one request")
    numbers = [row.concurrency for row in rows]
    _roofline_curve(axes, rows)
    if published:
        places = []
        speeds = []
        for row in published.rows:
            places.append(row.concurrency)
            speeds.append(row.tokens_per_s)
        axes.plot(places, speeds, "D", color=GREEN, label=f"published, all together: {published.title}")
        numbers += places
    axes.set_ylabel("tokens per second")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # space for the legend
    _concurrency_axis(axes, numbers)
    axes.legend(frameon=False, loc="upper left")
    return _png(figure)


def _roofline_curve(axes: "Axes", rows: Sequence[Row]) -> None:
    places = []
    ceilings = []
    for row in rows:
        if row.ceiling and row.ceiling.tokens_per_s:
            places.append(row.concurrency)
            ceilings.append(row.ceiling.tokens_per_s)
    if places:
        axes.plot(places, ceilings, color=GREY, linestyle="--", label="roofline, without a drafter")


def _latency(rows: Sequence[Row]) -> bytes:
    figure, (first, between) = _figure(2)
    _curve(first, rows, lambda row: row.ttft, BLUE, "median")
    _curve(first, rows, lambda row: row.ttft_p99, ORANGE, "99th percentile")
    _finish_latency(first, rows, "time to the first token")
    first.legend(frameon=False, loc="upper left")
    _curve(between, rows, lambda row: row.itl, BLUE, "median")
    _curve(between, rows, lambda row: row.itl_p99, ORANGE, "99th percentile")
    _finish_latency(between, rows, "between two chunks of a stream")
    return _png(figure)


def _finish_latency(axes: "Axes", rows: Sequence[Row], title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel("milliseconds")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # space for the legend
    _concurrency_axis(axes, [row.concurrency for row in rows])


def _acceptance(drafted: Sequence[Row]) -> bytes:
    figure, (axes,) = _figure(1)
    count = len(drafted)
    width = 0.8 / count
    most_positions = max(len(row.by_position) for row in drafted)
    for number, row in enumerate(drafted):
        offset = (number - (count - 1) / 2) * width
        places = []
        heights = []
        for position, rate in enumerate(row.by_position, start=1):
            places.append(position + offset)
            heights.append(100 * rate)
        shade = 0.35 + 0.65 * (number + 1) / count
        axes.bar(
            places, heights, width * 0.92, color=BLUE, alpha=shade, label=f"concurrency {row.concurrency}"
        )
    axes.set_xticks(range(1, 1 + most_positions))
    axes.set_xlabel("position in the draft")
    axes.set_ylabel("accepted, % of drafts")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, ncols=count, loc="upper right", fontsize=8)
    return _png(figure)


def _roofline(rows: Sequence[Row]) -> bytes:
    figure, (axes,) = _figure(1)
    names = []
    shares = []
    for row in rows:
        if row.reached:
            names.append(str(row.concurrency))
            shares.append(100 * row.reached)
    bars = axes.bar(names, shares, width=0.6, color=BLUE)
    label_box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # legible over the line at 100 %
    axes.bar_label(bars, fmt="%.0f %%", padding=3, bbox=label_box)
    axes.axhline(100, color=GREY, linestyle="--")
    axes.set_xlabel("concurrency")
    axes.set_ylabel("% of the roofline")
    axes.set_ylim(0, max(110.0, 1.15 * max(shares)))
    return _png(figure)


def _curve(
    axes: "Axes", rows: Sequence[Row], figure: Callable[[Row], Spread], colour: str, label: str
) -> None:
    """Draw the medians of a figure, with bars from the least run to the most."""
    places = []
    medians = []
    below = []
    above = []
    for row in rows:
        spread = figure(row)
        places.append(row.concurrency)
        medians.append(spread.median)
        below.append(spread.median - spread.low)
        above.append(spread.high - spread.median)
    axes.errorbar(
        places, medians, yerr=(below, above), fmt="o-", color=colour, capsize=3, markersize=4, label=label
    )


def _concurrency_axis(axes: "Axes", numbers: Sequence[int]) -> None:
    ticks = sorted(set(numbers))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    axes.set_xlabel("concurrency")
