"""The stages of an engine's start, read from its log. The patterns are in phases.yaml.

A start passes the phases in the order of `Phase`. Some may be skipped, none comes twice: a line of an earlier
phase counts as progress, but does not change the phase.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from deckard_deploy.failures.log_lines import parse


class Phase(StrEnum):
    """The stages in the order in which vLLM 0.19.1 goes through them.

    On a GPU: v1/worker/gpu_worker.py `load_model`, `determine_available_memory` (torch.compile happens inside
    its profile run), `compile_or_warm_up_model` (kernel warm-up, autotune, then CUDA graphs). On a CPU
    torch.compile happens in the warm-up, after the KV cache: v1/worker/cpu_model_runner.py:81.
    """

    CONTAINER = "container"
    IMPORTS = "imports"
    WEIGHTS = "weights"
    DRAFTER = "drafter"
    COMPILE = "torch.compile"
    PROFILING = "memory profiling"
    KV_CACHE = "KV cache"
    WARM_UP = "warm-up"
    AUTOTUNE = "FP4 autotune"
    CUDA_GRAPHS = "CUDA graphs"
    SERVER = "server"


ORDER = tuple(Phase)


@dataclass(frozen=True)
class Progress:
    """The current phase.

    since: the clock's second at which the phase began.
    percent: 0 to 100, of `step`, a progress bar of the phase.
    """

    phase: Phase
    since: float
    percent: float | None = None
    step: str = ""


@dataclass(frozen=True)
class Facts:
    """The figures that the engine logged, None until then. GiB are 2^30 bytes, `_s` are seconds."""

    model_loading_gib: float | None = None
    model_loading_s: float | None = None
    weights_s: float | None = None
    compile_s: float | None = None
    compile_cache_hit: bool | None = None
    available_kv_cache_gib: float | None = None
    kv_cache_tokens: int | None = None
    max_concurrency: float | None = None
    graph_capture_s: float | None = None
    graph_capture_gib: float | None = None
    init_engine_s: float | None = None


FACTS = frozenset(field.name for field in fields(Facts))


class LogPattern(BaseModel):
    """A line to look for. Its named groups are `percent`, `step`, or fields of Facts.

    phases: the current phase stays if it is one of these, else the first of them begins. Empty: the line
    counts as progress only.
    source: the place in vLLM's code that prints the line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: re.Pattern[str]
    source: str
    phases: tuple[Phase, ...] = ()
    facts: Facts = Facts()


@cache
def load_patterns() -> tuple[LogPattern, ...]:
    """Return the patterns of phases.yaml, in its order."""
    data = yaml.safe_load(Path(__file__).with_name("phases.yaml").read_text(encoding="utf-8"))
    return TypeAdapter(tuple[LogPattern, ...]).validate_python(data)


class PhaseTracker:
    """Progress and facts of one start, from all of its log lines. Never raises, never goes back."""

    def __init__(self, now: float) -> None:
        self.progress = Progress(Phase.CONTAINER, since=now)
        self.facts = Facts()
        self._entered = {Phase.CONTAINER: now}

    def feed(self, text: str, now: float) -> Progress | None:
        """Return the progress if the clean line matches a pattern, else None.

        now: seconds of any monotonic clock.
        """
        line = parse(text)
        if not line.text:
            return None
        for pattern in load_patterns():
            if found := pattern.line.search(line.text):
                self._learn(pattern, found)
                self._advance(pattern, found, now)
                return self.progress
        return None

    def durations(self, now: float) -> Mapping[Phase, float]:
        """Return the seconds spent in each phase so far, the current one up to `now`."""
        ends = [*list(self._entered.values())[1:], now]
        durations = {}
        for (phase, start), end in zip(self._entered.items(), ends, strict=True):
            durations[phase] = max(0.0, end - start)
        return durations

    def _advance(self, pattern: LogPattern, found: re.Match[str], now: float) -> None:
        if not pattern.phases:
            return
        current = self.progress
        phase = pattern.phases[0]
        if current.phase in pattern.phases:
            phase = current.phase
        if ORDER.index(phase) < ORDER.index(current.phase):
            return
        if phase != current.phase:
            self._entered[phase] = now
            current = Progress(phase, since=now)
        self.progress = _with_bar(current, found.groupdict())

    def _learn(self, pattern: LogPattern, found: re.Match[str]) -> None:
        """Store the line's facts that are still unknown.

        The first line that states a fact is right: the target model loads before the drafter.
        """
        stated = {name: value for name, value in vars(pattern.facts).items() if value is not None}
        for name, text in found.groupdict().items():
            if name in FACTS and text:
                stated[name] = _number(name, text)
        for name, value in stated.items():
            if getattr(self.facts, name) is None:
                self.facts = replace(self.facts, **{name: value})


def _with_bar(current: Progress, groups: Mapping[str, str | None]) -> Progress:
    """Return the progress with the state of the line's progress bar, if it has one."""
    text = groups.get("percent")
    if text is None:
        return current
    percent = min(100.0, float(text))
    step = groups.get("step") or ""
    # Ranks report in any order, so the percentage of one bar never falls. A second bar of the phase starts
    # over.
    if step == current.step and current.percent is not None:
        percent = max(percent, current.percent)
    return replace(current, percent=percent, step=step)


def _number(name: str, text: str) -> float | int:
    if name == "kv_cache_tokens":
        return int(text.replace(",", ""))
    return float(text)
