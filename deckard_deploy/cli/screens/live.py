"""The screen of `top`.

It is drawn several times a second, so that it follows a terminal that changes its size.
"""

import os
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deckard_deploy.cli.screens.figures import count, percent, rate, seconds
from deckard_deploy.measuring.window import Figures, Latency
from deckard_deploy.operations.top import Sample
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.system.text import clock

REDRAW_S = 0.25
BARS = "▁▂▃▄▅▆▇█"
CURVE = 30  # samples in the curve of throughput
NAME_WIDTH = 14  # characters of the longest name
BAR_WIDTH = 20  # characters of the KV cache's bar
FULL = 0.9  # a KV cache above this share is shown in red: the next long prompt preempts another request


def watch(plan: LaunchPlan, samples: Iterator[Sample], interval: float) -> None:
    """Show one sample after the other, `interval` seconds each, until q is pressed."""
    history: deque[float] = deque(maxlen=CURVE)
    with _keyboard() as pressed_key, Live(screen=True, auto_refresh=False) as live:
        for sample in samples:
            speed = sample.figures.generation_tok_s if sample.figures else None
            history.append(speed or 0.0)
            until = time.monotonic() + interval
            left = interval
            while left > 0:
                live.update(screen(plan, sample, history), refresh=True)
                if pressed_key(min(left, REDRAW_S)) == "q":
                    return
                left = until - time.monotonic()


def screen(plan: LaunchPlan, sample: Sample, history: Sequence[float]) -> Group:
    """Return the whole screen: at most 20 rows and one for each replica, because no line wraps."""
    title = f"{plan.model} on {plan.profile}, {plan.engine}"
    head = Text(title, style="bold", no_wrap=True, overflow="ellipsis")
    address = _line(plan.base_url)
    foot = Text("q leaves", style="dim")
    figures = sample.figures
    if figures is None:
        gone = Text(f"no answer at {sample.at:%H:%M:%S}: {sample.problem}", style="bold red")
        return Group(head, address, "", gone, Text("still asking"), "", foot)
    answered = f"answered at {sample.at:%H:%M:%S}, figures of the last {figures.window_s:.0f} s"
    since = _line(f"up {_age(sample)}, {answered}")
    parts = [_line(f"{name}  {_part(part)}") for name, part in sample.of]
    if parts:
        parts.append(_line(""))
    return Group(
        head, address, since, "", _throughput(figures, history), "", _latencies(figures), "", *parts, foot
    )


def _part(sample: Sample) -> str:
    """Return the figures of one replica as a line."""
    figures = sample.figures
    if figures is None:
        return f"no answer: {sample.problem}"
    return (
        f"generation {rate(figures.generation_tok_s)}  running {count(figures.running)}  "
        f"waiting {count(figures.waiting)}  KV {percent(figures.kv_use)}"
    )


def _throughput(figures: Figures, history: Sequence[float]) -> Table:
    rows: list[tuple[str, str | Text]] = [
        ("generation", f"{rate(figures.generation_tok_s):<16}{curve(history)}"),
        ("prompt", rate(figures.prompt_tok_s)),
        ("requests", f"{count(figures.running)} running, {count(figures.waiting)} waiting"),
        ("", f"{count(figures.finished)} ended"),
        ("KV cache", _bar(figures.kv_use)),
        ("preemptions", _alarm(count(figures.preemptions), alarmed=bool(figures.preemptions))),
        ("prefix cache", _prefix_hits(figures.prefix_hits)),
        ("drafter", _drafter(figures)),
        ("restarts", _alarm(str(figures.restarts), alarmed=bool(figures.restarts))),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", min_width=NAME_WIDTH, no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _latencies(figures: Figures) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", min_width=NAME_WIDTH, no_wrap=True)
    for _ in range(3):
        table.add_column(justify="right", min_width=9, no_wrap=True)
    table.add_row("latency", *(Text(name, style="dim") for name in ("median", "p95", "p99")))
    table.add_row("first token", *_percentiles(figures.first_token))
    table.add_row("between tokens", *_percentiles(figures.between_tokens))
    table.add_row("whole request", *_percentiles(figures.whole_request))
    return table


def _percentiles(latency: Latency) -> list[str]:
    return [seconds(latency.p50_s), seconds(latency.p95_s), seconds(latency.p99_s)]


def _drafter(figures: Figures) -> str:
    if figures.acceptance_rate is None or figures.acceptance_length is None:
        return "-"
    positions = " ".join(percent(share) for share in figures.acceptance_by_position)
    rate_text = f"{percent(figures.acceptance_rate)} accepted"
    return f"{rate_text}, {figures.acceptance_length:.2f} tokens a step ({positions})"


def _prefix_hits(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{percent(share)} of the prompts' tokens found"


def _bar(share: float | None) -> Text:
    if share is None:
        return Text("-")
    filled = round(min(share, 1.0) * BAR_WIDTH)
    bar = "█" * filled + "░" * (BAR_WIDTH - filled)
    return Text(f"{bar} {share:.1%}", style="red" if share >= FULL else "")


def _alarm(text: str, *, alarmed: bool) -> Text:
    return Text(text, style="bold red" if alarmed else "")


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _age(sample: Sample) -> str:
    started = sample.figures.started_at if sample.figures else None
    return clock(sample.at.timestamp() - started) if started else "-"


def curve(values: Sequence[float]) -> str:
    """Return one character for each value, from zero to the highest; an empty string if all are zero."""
    highest = max(values, default=0.0)
    if not highest:
        return ""
    return "".join(BARS[round(value / highest * (len(BARS) - 1))] for value in values)


@contextmanager
def _keyboard() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits for a key, for so many seconds, and returns it; "" without one.

    The settings of the terminal are restored at the end.
    """
    if not sys.stdin.isatty():
        yield _sleep
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)

    def read_key(timeout_s: float) -> str:
        ready, _, _ = select.select([keyboard], [], [], timeout_s)
        return os.read(keyboard, 1).decode("latin-1") if ready else ""

    try:
        yield read_key
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _sleep(timeout_s: float) -> str:
    time.sleep(timeout_s)
    return ""
