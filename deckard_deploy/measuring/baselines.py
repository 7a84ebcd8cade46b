"""Published tables to compare with, by name: baselines.yaml."""

from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, TypeAdapter


class PublishedRow(BaseModel):
    """One concurrency. tokens_per_s: of all requests together. each: of one. latency_s: of one answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: PositiveInt
    tokens_per_s: PositiveFloat
    each: PositiveFloat | None = None
    latency_s: PositiveFloat | None = None


class Baseline(BaseModel):
    """A published table and its source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    source: str
    machine: str
    profile: str  # the hardware profile of that machine
    model: str
    drafter: str | None
    method: str
    rows: tuple[PublishedRow, ...]

    @property
    def speeds(self) -> dict[int, list[float]]:
        """Tokens per second, by concurrency; one figure each."""
        return {row.concurrency: [row.tokens_per_s] for row in self.rows}


@cache
def baselines() -> dict[str, Baseline]:
    """Return the published tables by name, in the order of the file."""
    text = Path(__file__).with_name("baselines.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Baseline]).validate_python(yaml.safe_load(text))
