"""Which stage of its start an engine is in, read from its log; the patterns are in phases.yaml.

Phases are passed in the order of `Phase`, some are left out, none comes twice: a line of an earlier phase still shows
that the engine works, but changes nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from deckard_deploy.startup.log_lines import read_lines


class Phase(StrEnum):
    """The stages in the order in which vLLM 0.19.1 goes through them.

    On a GPU: v1/worker/gpu_worker.py `load_model`, `determine_available_memory` (torch.compile happens inside its
    profile run), `compile_or_warm_up_model` (kernel warm-up, autotune, then CUDA graphs). On a CPU torch.compile
    happens in the warm-up, after the KV cache: v1/worker/cpu_model_runner.py:81.
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
    """`percent` (0 to 100) belongs to `step`, a bar of the phase; `since` is the clock's second the phase began."""

    phase: Phase
    since: float
    percent: float | None = None
    step: str = ""


@dataclass(frozen=True)
class Facts:
    """What the engine said about itself; None where it has not (yet). GiB are 2^30 bytes, `_s` are seconds."""

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


class Pattern(BaseModel):
    """A line to look for. Named groups are `percent`, `step`, or fields of Facts.

    `phases`: the current phase stays if it is one of them, else the first begins; none: the line shows only that the
    engine works. `source` is where the line's text was read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: re.Pattern[str]
    source: str
    phases: tuple[Phase, ...] = ()
    facts: Facts = Facts()


@cache
def patterns() -> tuple[Pattern, ...]:
    """The patterns of phases.yaml, in its order."""
    data = yaml.safe_load(Path(__file__).with_name("phases.yaml").read_text(encoding="utf-8"))
    return TypeAdapter(tuple[Pattern, ...]).validate_python(data)


class PhaseTracker:
    """Fed with every log line of one start; never raises, never goes back."""

    def __init__(self, now: float) -> None:
        self.progress = Progress(Phase.CONTAINER, since=now)
        self.facts = Facts()
        self._entered = {Phase.CONTAINER: now}

    def feed(self, raw: str, now: float) -> Progress | None:
        """The progress if one of the patterns is in `raw`, else None. `now` is in seconds of any monotonic clock."""
        known = False
        for line in read_lines(raw):
            for pattern in patterns():
                if found := pattern.line.search(line.text):
                    known = True
                    self._learn(pattern, found)
                    self._advance(pattern, found, now)
                    break
        return self.progress if known else None

    def durations(self, now: float) -> Mapping[Phase, float]:
        """Seconds spent in each phase so far, the current one up to `now`."""
        ends = [*list(self._entered.values())[1:], now]
        return {
            phase: max(0.0, end - start)
            for (phase, start), end in zip(self._entered.items(), ends, strict=True)
        }

    def _advance(self, pattern: Pattern, found: re.Match[str], now: float) -> None:
        current = self.progress
        if not pattern.phases:
            return
        phase = current.phase if current.phase in pattern.phases else pattern.phases[0]
        if ORDER.index(phase) < ORDER.index(current.phase):
            return
        if phase != current.phase:
            self._entered[phase] = now
            current = Progress(phase, since=now)
        groups = found.groupdict()
        if groups.get("percent") is not None:
            percent, step = min(100.0, float(groups["percent"])), groups.get("step") or ""
            # Ranks report in any order; a second bar of the phase starts over.
            same_bar = step == current.step and current.percent is not None
            percent = max(percent, current.percent or 0.0) if same_bar else percent
            current = replace(current, percent=percent, step=step)
        self.progress = current

    def _learn(self, pattern: Pattern, found: re.Match[str]) -> None:
        """Take the facts of a line; the first to say one is right: the target loads before the drafter."""
        said = {
            name: _number(name, text) for name, text in found.groupdict().items() if name in FACTS and text
        }
        stated = {name: value for name, value in vars(pattern.facts).items() if value is not None}
        unknown = {
            name: value for name, value in {**stated, **said}.items() if getattr(self.facts, name) is None
        }
        self.facts = replace(self.facts, **unknown)


def _number(name: str, text: str) -> float | int:
    return int(text.replace(",", "")) if name == "kv_cache_tokens" else float(text)
