"""Benchmark records: what was measured, of what, on what, and how, in one JSON file each.

bench/<id>.json in the state directory. `format` grows when a reader of the old one would misread the new.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.system.files import UMASK_MODE, write_atomically

FORMAT = 1
MAX_BYTES = 64 << 20
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z0-9._-]{1,64}")
# A record may come from anywhere: what is printed of it must not drive the terminal, nor its id name another folder.
Text: TypeAlias = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Measure: TypeAlias = Annotated[float, Field(gt=1e-9, lt=1e12)]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=10**12)]
Some: TypeAlias = Annotated[int, Field(gt=0, lt=10**12)]


class Part(BaseModel):
    """Base of the parts of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Percentiles(Part):
    """Of all requests of a run, in milliseconds."""

    p50: float
    p90: float
    p99: float


class Acceptance(Part):
    """What the engine's own counters (vllm:spec_decode_*) grew by during a run; rates of 0 to 1."""

    drafts: Some
    draft_tokens: Some
    accepted_tokens: Count
    by_position: tuple[Annotated[float, Field(ge=0, lt=1e12)], ...]

    @property
    def rate(self) -> float:
        """Accepted of all draft tokens."""
        return self.accepted_tokens / self.draft_tokens

    @property
    def length(self) -> float:
        """Tokens that a step of the target yields, its own included."""
        return 1 + self.accepted_tokens / self.drafts


class Request(Part):
    """One answered request."""

    ttft_s: float
    latency_s: Measure
    input_tokens: Count
    output_tokens: Some


class Run(Part):
    """One run of `vllm bench serve`. tokens_per_s: output tokens of all streams together.

    itl: between two chunks of a stream, which are several tokens with a drafter. tpot: per token after the first.
    """

    concurrency: Some
    seed: int
    duration_s: Measure
    completed: Count
    failed: Count
    input_tokens: Count
    output_tokens: Count
    tokens_per_s: Measure
    ttft: Percentiles
    itl: Percentiles
    tpot: Percentiles
    latency: Percentiles
    acceptance: Acceptance | None = None
    requests: tuple[Request, ...] = Field(min_length=1)


class Ceiling(Part):
    """The roofline beside the runs of one concurrency; None: not known, `why` says why."""

    concurrency: Some
    tokens_per_s: Measure | None = None
    why: Text = ""


class Drafting(Part):
    """The speculative decoding of the server; tokens: how many a step drafts."""

    method: Text
    model: Text | None
    tokens: int


class Subject(Part):
    """What was measured; None where it was not started by this tool."""

    plan: Text | None = None
    deployment: Text | None = None
    profile: Text | None = None
    model: Text
    engine: Text
    vllm_version: Text
    image: Text | None = None
    drafting: Drafting | None = None
    patches: dict[str, str] = Field(default_factory=dict)
    arguments: tuple[str, ...] = ()


class Head(Part):
    """What every kind of record begins with."""

    format: Literal[1] = 1
    id: Name
    made_at: Text
    tool_version: Text
    subject: Subject
    host: dict[str, Any]


class Record(Head):
    """One sweep. beside: the record of the deployment that was measured in turn with this one. ended: why too early."""

    settings: Settings
    command: tuple[str, ...]
    runs: tuple[Run, ...]
    ceilings: tuple[Ceiling, ...] = ()
    beside: Name | None = None
    ended: Text = ""

    def of(self, concurrency: int) -> tuple[Run, ...]:
        """The runs of one concurrency."""
        return tuple(run for run in self.runs if run.concurrency == concurrency)

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """Those that were measured, ascending."""
        return tuple(sorted({run.concurrency for run in self.runs}))


class RecordHeader(Head):
    """The part of a Record that is known before its first run."""

    settings: Settings
    command: tuple[str, ...]
    ceilings: tuple[Ceiling, ...] = ()

    def record(self, *, runs: Iterable[Run], stopped: str = "", beside: str | None = None) -> Record:
        """Return the record of these runs.

        stopped: the reason why the sweep stopped early, of any length: it may quote a server, so control
        characters are removed. beside: the id of the record that was measured in turn with this one. Raises
        ValueError when there is no run.
        """
        runs = tuple(runs)
        if not runs:
            raise ValueError(f"record {self.id} has no run")
        one_line = " ".join(stopped.split())
        reason = "".join(letter for letter in one_line if letter.isprintable())
        return Record(
            id=self.id,
            made_at=self.made_at,
            tool_version=self.tool_version,
            subject=self.subject,
            host=self.host,
            settings=self.settings,
            command=self.command,
            runs=runs,
            ceilings=self.ceilings,
            beside=beside,
            ended=reason[:500],
        )


def save(folder: Path, record: Record) -> Path:
    """Write the record. Raises EnvironmentUnfitError."""
    path = folder / f"{record.id}.json"
    write_atomically(path, record.model_dump_json(indent=1) + "\n", mode=UMASK_MODE)
    return path


def ids(folder: Path) -> list[str]:
    """The records of the folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path.stem for path in folder.glob("*.json") if _ID.fullmatch(path.stem))


def load(path: Path) -> Record:
    """Read a record. Raises BadInputError when there is none, IntegrityError when it is damaged."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}", hint="deckard-deploy bench list") from error
    if len(content) > MAX_BYTES:
        raise IntegrityError(f"{path}: more than {MAX_BYTES} bytes: not a record")
    try:
        record = Record.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise IntegrityError(f"{path}: {where}: {first['msg']}", hint="deckard-deploy bench list") from error
    if not record.runs:
        raise IntegrityError(f"{path}: a record without a run", hint="deckard-deploy bench list")
    return record


def find(folder: Path, name: str) -> Path:
    """The record that `name` means: a file, an id, the start of just one, or `last`. Raises BadInputError."""
    if "/" in name or name.endswith(".json"):
        return Path(name)
    known = ids(folder)
    found = (
        known[-1:] if name == "last" else [each for each in known if each == name or each.startswith(name)]
    )
    if len(found) != 1:
        what = f"{len(found)} records begin with {name!r}" if found else f"no record {name[:80]!r}"
        raise BadInputError(what, hint="deckard-deploy bench list")
    return folder / f"{found[0]}.json"
