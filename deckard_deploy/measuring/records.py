"""Benchmark records: the figures, the server, the host and the settings of a sweep, in one JSON file each.

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

MAX_BYTES = 64 << 20
_MAX_REASON = 500  # characters of the reason why a sweep stopped
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z0-9._-]{1,64}")
# A record may come from anywhere: printed text must not drive the terminal, and an id must not name another
# folder.
Text: TypeAlias = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Measure: TypeAlias = Annotated[float, Field(gt=1e-9, lt=1e12)]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=10**12)]
PositiveInt: TypeAlias = Annotated[int, Field(gt=0, lt=10**12)]


class RecordPart(BaseModel):
    """Base of the parts of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Percentiles(RecordPart):
    """Percentiles over all requests of a run, in milliseconds."""

    p50: float
    p90: float
    p99: float


class Acceptance(RecordPart):
    """The increase of the engine's own counters (vllm:spec_decode_*) during a run; rates of 0 to 1."""

    drafts: PositiveInt
    draft_tokens: PositiveInt
    accepted_tokens: Count
    by_position: tuple[Annotated[float, Field(ge=0, lt=1e12)], ...]

    @property
    def rate(self) -> float:
        """The share of draft tokens that were accepted, 0 to 1."""
        return self.accepted_tokens / self.draft_tokens

    @property
    def length(self) -> float:
        """Tokens per step of the target, its own one included."""
        return 1 + self.accepted_tokens / self.drafts


class Request(RecordPart):
    """One answered request."""

    ttft_s: float
    latency_s: Measure
    input_tokens: Count
    output_tokens: PositiveInt


class Run(RecordPart):
    """One run of `vllm bench serve`. tokens_per_s: output tokens of all streams together.

    itl: between two chunks of a stream, which hold several tokens with a drafter. tpot: per token after the
    first.
    """

    concurrency: PositiveInt
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


class Ceiling(RecordPart):
    """The roofline of one concurrency. tokens_per_s is None when it is unknown, for the reason in `why`."""

    concurrency: PositiveInt
    tokens_per_s: Measure | None = None
    why: Text = ""


class Drafting(RecordPart):
    """The server's speculative decoding. tokens: drafted per step."""

    method: Text
    model: Text | None
    tokens: int


class Subject(RecordPart):
    """The measured server. Fields are None where this tool did not start it."""

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


class RecordBase(RecordPart):
    """The first fields of every kind of record."""

    format: Literal[1] = 1
    id: Name
    made_at: Text
    tool_version: Text
    subject: Subject
    host: dict[str, Any]


class BenchRecord(RecordBase):
    """One sweep. Make it with RecordHeader.record.

    beside: the record of the deployment that was measured in turn with this one. ended: the reason why the
    sweep stopped early, empty if it did not.
    """

    settings: Settings
    command: tuple[str, ...]
    runs: tuple[Run, ...]
    ceilings: tuple[Ceiling, ...] = ()
    beside: Name | None = None
    ended: Text = ""

    def of(self, concurrency: int) -> tuple[Run, ...]:
        """Return the runs of one concurrency."""
        return tuple(run for run in self.runs if run.concurrency == concurrency)

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """The measured concurrencies, ascending."""
        return tuple(sorted({run.concurrency for run in self.runs}))

    @property
    def failed(self) -> int:
        """Failed requests of all runs."""
        return sum(run.failed for run in self.runs)

    @property
    def unknown_roofline_reasons(self) -> list[str]:
        """The reasons why a roofline is unknown, sorted."""
        return sorted({ceiling.why for ceiling in self.ceilings if ceiling.why})


class RecordHeader(RecordBase):
    """The part of a Record that is known before its first run."""

    settings: Settings
    command: tuple[str, ...]
    ceilings: tuple[Ceiling, ...] = ()

    def record(self, *, runs: Iterable[Run], stopped: str = "", beside: str | None = None) -> BenchRecord:
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
        return BenchRecord(
            **dict(self),
            runs=runs,
            beside=beside,
            ended=reason[:_MAX_REASON],
        )


def save(folder: Path, record: BenchRecord) -> Path:
    """Write the record as FOLDER/ID.json and return the path. Raises EnvironmentUnfitError."""
    path = folder / f"{record.id}.json"
    write_atomically(path, record.model_dump_json(indent=1) + "\n", mode=UMASK_MODE)
    return path


def ids(folder: Path) -> list[str]:
    """Return the ids of the folder's records, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path.stem for path in folder.glob("*.json") if _ID.fullmatch(path.stem))


def load(path: Path) -> BenchRecord:
    """Read a record. Raises BadInputError when it cannot be read, IntegrityError when it is damaged."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}", hint="deckard-deploy bench list") from error
    if len(content) > MAX_BYTES:
        raise IntegrityError(f"{path}: more than {MAX_BYTES} bytes: not a record")
    try:
        record = BenchRecord.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise IntegrityError(f"{path}: {where}: {first['msg']}", hint="deckard-deploy bench list") from error
    if not record.runs:
        raise IntegrityError(f"{path}: a record without a run", hint="deckard-deploy bench list")
    return record


def find(folder: Path, name: str) -> Path:
    """Return the path of a record, named by a file, an id, the unique start of an id, or `last`.

    Raises BadInputError when no record or more than one matches.
    """
    if "/" in name or name.endswith(".json"):
        return Path(name)
    known = ids(folder)
    if name == "last":
        found = known[-1:]
    else:
        found = [each for each in known if each.startswith(name)]
    if len(found) == 1:
        return folder / f"{found[0]}.json"
    what = f"no record {name[:80]!r}"
    if found:
        what = f"{len(found)} records begin with {name!r}"
    raise BadInputError(what, hint="deckard-deploy bench list")
