"""Two served models on one text, as text of at most 80 columns."""

import textwrap

import click

from deckard_deploy.cli.output import table
from deckard_deploy.cli.screens.layout import WIDTH
from deckard_deploy.measuring.comparison import Ratio
from deckard_deploy.measuring.fidelity import NO_DIFFERENCE, Fidelity, Figure
from deckard_deploy.measuring.tables import format_number
from deckard_deploy.operations.compare import ComparedModels


def print_comparison(compared: ComparedModels) -> None:
    """Print the figures of both sides, their difference with its interval, and the verdict of each."""
    a, b, found = compared.a, compared.b, compared.found
    rows = [
        ("", a.deployment, b.deployment, "B against A", ""),
        ("model", a.model, b.model, "", ""),
        (
            "weights",
            _size(a.weight_bytes),
            _size(b.weight_bytes),
            _size_ratio(a.weight_bytes, b.weight_bytes),
            "",
        ),
        ("tok/s", _speed(a.speeds), _speed(b.speeds), *_speed_ratio(compared.speed)),
        *_text_rows(found),
    ]
    table(rows)
    for line in _notes(compared):
        click.echo(line)
    if compared.no_difference:
        click.echo(f"{NO_DIFFERENCE} between {a.deployment} and {b.deployment} on this text")


def _notes(compared: ComparedModels) -> list[str]:
    text = (
        f"{compared.found.tokens:,} tokens in {compared.found.passages} passages; 99 % intervals over passages, by a "
        "bootstrap. KL in nats a token is a lower bound: all but the "
        f"{min(compared.a.top, compared.b.top)} likeliest tokens count as one. What each model differs from itself by, "
        "asked twice, is subtracted before a difference is seen."
    )
    return textwrap.wrap(text, WIDTH)


def _text_rows(found: Fidelity) -> list[tuple[str, ...]]:
    share = found.same_greedy
    greedy = f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%})"
    return [
        (
            "perplexity",
            f"{found.perplexity_a:.4g}",
            f"{found.perplexity_b:.4g}",
            _interval(found.perplexity_ratio),
            found.perplexity_verdict,
        ),
        ("KL, at least", "", "", _interval(found.kl), found.kl_verdict),
        ("same greedy token", "", "", greedy, found.greedy_verdict),
    ]


def _interval(figure: Figure) -> str:
    return f"{figure.value:.4g} ({figure.low:.4g} to {figure.high:.4g})"


def _size(weight_bytes: int | None) -> str:
    return "unknown" if weight_bytes is None else f"{weight_bytes / 1e9:.3g} GB"


def _size_ratio(a: int | None, b: int | None) -> str:
    return f"{b / a:.2f}" if a and b else ""


def _speed(speeds: tuple[float, ...]) -> str:
    return format_number(sorted(speeds)[len(speeds) // 2]) if speeds else "not measured"


def _speed_ratio(ratio: Ratio | None) -> tuple[str, str]:
    if ratio is None:
        return "", ""
    return f"{ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f})", ratio.verdict
