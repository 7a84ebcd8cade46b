"""The screen of `top`: drawn anew several times a second, so that it follows a terminal that changes its size."""

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
SHOWN = 30  # samples in the curve of throughput
NAMES = 14  # characters of the longest name
BAR = 20  # characters of the KV cache's bar
FULL = 0.9  # from here on a KV cache is shown in red: the next long prompt throws another request out


def watch(plan: LaunchPlan, samples: Iterator[Sample], interval: float) -> None:
    """Show one sample after the other, `interval` seconds each, until q is pressed."""
    history: deque[float] = deque(maxlen=SHOWN)
    with _keyboard() as pressed, Live(screen=True, auto_refresh=False) as live:
        for sample in samples:
            history.append(sample.figures.generation_tok_s or 0.0 if sample.figures else 0.0)
            until = time.monotonic() + interval
            while (left := until - time.monotonic()) > 0:
                live.update(screen(plan, sample, history), refresh=True)
                if pressed(min(left, REDRAW_S)) == "q":
                    return


def screen(plan: LaunchPlan, sample: Sample, history: Sequence[float]) -> Group:
    """Everything on it. Nothing wraps, so that 20 rows always suffice."""
    address = _line(plan.base_url)
    head = Text(
        f"{plan.model} on {plan.profile}, {plan.engine}", style="bold", no_wrap=True, overflow="ellipsis"
    )
    foot = Text("q leaves", style="dim")
    if sample.figures is None:
        gone = Text(f"no answer at {sample.at:%H:%M:%S}: {sample.problem}", style="bold red")
        return Group(head, address, "", gone, Text("still asking"), "", foot)
    since = _line(
        f"up {_age(sample)}, answered at {sample.at:%H:%M:%S}, figures of the last {sample.figures.window_s:.0f} s"
    )
    return Group(
        head, address, since, "", _now(sample.figures, history), "", _latencies(sample.figures), "", foot
    )


def _now(figures: Figures, history: Sequence[float]) -> Table:
    rows: list[tuple[str, str | Text]] = [
        ("generation", f"{rate(figures.generation_tok_s):<16}{curve(history)}"),
        ("prompt", rate(figures.prompt_tok_s)),
        ("requests", f"{count(figures.running)} running, {count(figures.waiting)} waiting"),
        ("", f"{count(figures.finished)} ended"),
        ("KV cache", _bar(figures.kv_use)),
        ("preemptions", _alarm(count(figures.preemptions), bool(figures.preemptions))),
        ("prefix cache", _found(figures.prefix_hits)),
        ("drafter", _drafter(figures)),
        ("restarts", _alarm(str(figures.restarts), bool(figures.restarts))),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", min_width=NAMES, no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _latencies(figures: Figures) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", min_width=NAMES, no_wrap=True)
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
    return f"{percent(figures.acceptance_rate)} accepted, {figures.acceptance_length:.2f} tokens a step ({positions})"


def _found(share: float | None) -> str:
    return "-" if share is None else f"{percent(share)} of the prompts' tokens found"


def _bar(share: float | None) -> Text:
    if share is None:
        return Text("-")
    filled = round(min(share, 1.0) * BAR)
    return Text(f"{'█' * filled}{'░' * (BAR - filled)} {share:.1%}", style="red" if share >= FULL else "")


def _alarm(text: str, wrong: bool) -> Text:  # noqa: FBT001  what decides the colour
    return Text(text, style="bold red" if wrong else "")


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _age(sample: Sample) -> str:
    started = sample.figures.started_at if sample.figures else None
    return clock(sample.at.timestamp() - started) if started else "-"


def curve(values: Sequence[float]) -> str:
    """One character a value, from nought to the highest."""
    highest = max(values, default=0.0)
    if not highest:
        return ""
    return "".join(BARS[round(value / highest * (len(BARS) - 1))] for value in values)


@contextmanager
def _keyboard() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key and says which; the terminal is as before in the end."""
    if not sys.stdin.isatty():
        yield _sleep
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield lambda timeout_s: os.read(keyboard, 1).decode("latin-1") if _ready(keyboard, timeout_s) else ""
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _ready(keyboard: int, timeout_s: float) -> bool:
    return bool(select.select([keyboard], [], [], timeout_s)[0])


def _sleep(timeout_s: float) -> str:
    time.sleep(timeout_s)
    return ""
