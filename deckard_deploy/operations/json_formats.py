"""The formats of `--json`, from which docs/json.md and its schemas are generated.

A new field does not change a version. A field that is renamed, removed or given another meaning does, and
CHANGELOG.md says so. Tests check the output of the commands against these types.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from deckard_deploy.catalog.specs import EngineSpec, HardwareProfile, ModelSpec, RecipeSpec
from deckard_deploy.doctor.findings import Finding
from deckard_deploy.doctor.fitting import Fit
from deckard_deploy.measuring.records import BenchRecord
from deckard_deploy.measuring.speculation import SpecRecord
from deckard_deploy.measuring.startup_records import StartupRecord
from deckard_deploy.measuring.tuning import TuneRecord
from deckard_deploy.measuring.window import Figures
from deckard_deploy.operations.key_usage import KeyUsage
from deckard_deploy.operations.qualify import Check
from deckard_deploy.patching.manifest import Patch
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.weights.inspection import Inspection


class Part(BaseModel):
    """A JSON object with exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class NotKnown(Part):
    """The reason why something is not known."""

    unknown: str


class MemoryPartJson(Part):
    """One part of the GPU's memory, in bytes."""

    name: str
    expected: int
    low: int
    high: int
    measured: bool
    source: str


class KvCacheJson(Part):
    """The KV cache. groups: layers and block size of each group; max_concurrency: as vLLM's log prints it."""

    bytes: int
    exact: bool
    groups: list[tuple[int, int]]
    block_bytes: int
    blocks: int
    tokens: int
    max_concurrency: float


class SequenceJson(Part):
    """One sequence of the maximum length. in_flight: tokens that one step may add."""

    tokens: int
    bytes: int
    in_flight: int


class MemoryJson(Part):
    """The memory plan. changes: options that would make the plan fit. sequences: length -> sequences that fit."""

    verdict: str
    problem: str | None
    changes: list[list[str]]
    total: int | None
    available: int | None
    requested: int | None
    parts: list[MemoryPartJson]
    kv_cache: KvCacheJson
    sequence: SequenceJson
    sequences: dict[str, int]


class CeilingJson(Part):
    """The highest possible speed of so many sequences at one context, in tokens per second of all together."""

    sequences: int
    context: int
    tokens_per_s: float


class BestTokensJson(Part):
    """The best number of draft tokens at one acceptance."""

    acceptance: float
    tokens: int
    speedup: float


class DraftingJson(Part):
    """The draft tokens of a step, their cost as a share of a step, and the acceptance from which they pay."""

    tokens: int
    cost: float
    break_even_acceptance: float | None
    best: list[BestTokensJson]


class EfficiencyJson(Part):
    """The share of the ceiling that published runs reach."""

    value: float
    source: str


class SpeedJson(Part):
    """The speed by memory bandwidth; bytes, and bytes per second."""

    weight_bytes: int
    bandwidth: float
    efficiency: EfficiencyJson | None
    ceiling: list[CeilingJson]
    drafter: DraftingJson | None


class MemberJson(Part):
    """A replica: its deployment, the hash of its plan, its GPUs by id, and the port that only this tool may use."""

    deployment: str
    plan: str
    gpus: list[str]
    port: int


class GroupJson(Part):
    """Replicas and their front. front: the hash of its plan. tokens_per_s: of so many sequences in all replicas."""

    count: int
    base_url: str
    front: str
    members: list[MemberJson]
    kv_cache_tokens: int | None
    tokens_per_s: dict[str, float]


class NeighbourJson(Part):
    """A deployment that runs on the machine. bytes: what its recorded plan takes of each of its GPUs."""

    deployment: str
    model: str
    port: int
    gpus: list[str]
    bytes: int


class BothJson(Part):
    """Options of this plan and of a running deployment with which both fit."""

    options: list[str]
    neighbour: str
    neighbour_options: list[str]


class SharedJson(Part):
    """The machine with its other deployments, in bytes of one GPU or of a unified machine.

    free: what they leave. usable: of that, what an engine may ask for. problem: why this plan does not fit, where its
    own memory is not computed. changes: options of this plan alone that would fit. both: options for it and another.
    """

    neighbours: list[NeighbourJson]
    total: int
    free: int
    usable: int
    problem: str | None
    changes: list[str]
    both: BothJson | None


class PlanJson(Part):
    """The plan of `up`. current: the hash of the running release. drafter_measured: the record of `bench spec`."""

    hash: str
    current: str | None
    changes: list[str]
    memory: MemoryJson | NotKnown
    speed: SpeedJson | NotKnown
    drafter_measured: dict[str, Any] | None
    api_limits: list[str]
    plan: LaunchPlan
    shared: SharedJson | None = Field(
        default=None, description="null: no other deployment runs, or this one runs as planned"
    )
    replicas: GroupJson | None = None


class StatusJson(Part):
    """A deployment. Only `deployment` and `condition` are always there; times are ISO 8601 in UTC."""

    deployment: str
    condition: Literal["ready", "loading", "failed", "not answering", "stopped", "unknown"]
    reason: str | None = Field(default=None, description="why the condition is unknown")
    state: str | None = None
    answers: str | None = None
    base_url: str | None = None
    gateway: str | None = None
    gateway_state: str | None = None
    served_name: str | None = None
    profile: str | None = None
    model: str | None = None
    engine: str | None = None
    plan: str | None = Field(default=None, description="the hash of the release's plan")
    weights_changed: list[str] | None = None
    since: str | None = None
    restarts: int | None = None
    exit_code: int | None = None
    instance: str | None = None
    gives_up: str | None = Field(default=None, description="the security defaults that the settings remove")
    gets_requests: bool | None = Field(default=None, description="of a replica: its front has it in the list")
    watch: str | None = None
    watch_reason: str | None = None
    watch_restarts: list[str] | None = None
    last_failure: str | None = None
    failed_log: str | None = None


class DoctorJson(Part):
    """The findings. profile: None if none was named and none fits. failed: a finding would stop the deployment."""

    profile: str | None
    failed: bool
    findings: list[Finding]


class TemplateJson(Part):
    """The chat template: facts, and reasons why a grammar would not be applied."""

    shown: list[str]
    faults: list[str]


@dataclass(frozen=True, kw_only=True)
class InspectJson(Inspection):
    """A checkpoint. patches: the patches that its format needs."""

    patches: list[str]
    chat_template: TemplateJson


class KeyJson(Part):
    """A client's key: its name, the date of its creation, and its limits; requests and tokens are a minute's."""

    name: str
    made: str
    requests: int | None
    tokens: int | None
    concurrent: int | None
    ends_at: int | None


class WrongFileJson(Part):
    """A file of a model that differs from what was published."""

    path: str
    cause: str


class VerifyJson(Part):
    """The wrong files of each model. right: there is none."""

    models: dict[str, list[WrongFileJson]]
    right: bool


class RepairedTensorJson(Part):
    """The NaN scales of one tensor: how many became 448, and how many 0."""

    tensor: str
    file: str
    largest: int
    zero: int


class QuantizedSourceJson(Part):
    """The quantized checkpoint. repo, commit: of a pulled one."""

    name: str
    repo: str | None
    commit: str | None
    config_sha256: str


class CalibrationJson(Part):
    """The calibration data. texts: those that were used, of all in the file. tokens: after the cut to length."""

    name: str
    sha256: str
    texts: int
    of: int
    tokens: int
    for_rehearsals_only: bool


class QuantizedBytesJson(Part):
    """The bytes of the tensors."""

    before: int
    after: int


class NanScalesJson(Part):
    """NaN block scales of the export, which are repaired: to 448, or to 0."""

    found: int
    set_to_zero: int


class QuantizeJson(Part):
    """A quantization; quantization-report.json has the same. seconds: by phase. peak_gpu_bytes: None on a CPU.

    relative_error_of_weights: of each linear, |W' - W| / |W| in the Frobenius norm, from the written files.
    """

    source: QuantizedSourceJson
    recipe: RecipeSpec
    calibration: CalibrationJson
    versions: dict[str, str]
    device: str
    peak_gpu_bytes: int | None
    seconds: dict[str, float]
    bytes: QuantizedBytesJson
    nan_scales: NanScalesJson
    relative_error_of_weights: dict[str, float]


class RepairJson(Part):
    """A repaired copy. written: None with --dry-run, and if there is nothing to repair. left: folders, not copied."""

    source: str
    written: str | None
    scales: list[RepairedTensorJson]
    added: list[str]
    base: str | None
    left: list[str]


class DiagnoseJson(Part):
    """The cause of a failure in a log. signature: its id in docs/troubleshooting.md."""

    state: str
    phase: str | None
    signature: str | None
    first_fatal_line: str | None
    cause: str
    fix: str | None
    source: str | None


class ProfilesHereJson(Part):
    """The profiles and whether this machine can run them. default: the one that `up` selects."""

    default: str | None
    profiles: list[Fit]


class EntryJson(Part):
    """An entry of the catalog."""

    name: str
    description: str


class LockJson(Part):
    """The differences between deckard.lock and what is published."""

    lock_file: str
    differences: list[str]


class VerdictJson(Part):
    """A patch against one file of an engine."""

    name: str
    target: str
    verdict: str
    fits: bool
    detail: str
    found: str


class FileJson(Part):
    """A file that was written."""

    name: str
    sha256: str
    path: str


class PatchJson(Patch):
    """A patch. needed: by the plan that was named; None without one."""

    needed: bool | None


class PatchSetJson(Part):
    """The patches of one vLLM release."""

    name: str
    vllm: str
    patches: list[PatchJson]


@dataclass(frozen=True, kw_only=True)
class TopJson(Figures):
    """One line of `top`: the figures of the last seconds. at: ISO 8601."""

    at: str


class NoAnswerJson(Part):
    """One line of `top` while the endpoint does not answer."""

    at: str
    problem: str


class NamedSideJson(Part):
    """One side of a comparison."""

    name: str
    about: str


class RatioJson(Part):
    """The ratio new / old with its 95 % interval. high: None if it has no upper end."""

    concurrency: int | None = None
    ratio: float
    low: float
    high: float | None
    verdict: str


class CompareJson(Part):
    """A comparison of two benchmark records."""

    old: NamedSideJson
    new: NamedSideJson
    rows: list[RatioJson]
    overall: RatioJson


class FigureJson(Part):
    """A figure with its 99 % interval."""

    value: float
    low: float
    high: float


class VerdictFigureJson(FigureJson):
    """A figure, and the verdict on B. excess: without what each side differs from itself by; the verdict is on it."""

    excess: FigureJson | None = None
    verdict: str


class SpeedRatioJson(Part):
    """Tokens per second of single requests, B / A, with the 99 % interval."""

    ratio: float
    low: float
    high: float
    verdict: str


class ServedSideJson(Part):
    """One served model. weight_bytes: None if unknown. top: candidates a token. speeds: tokens per second."""

    deployment: str
    model: str
    engine: str
    plan: str
    weight_bytes: int | None
    top: int
    perplexity: float
    speeds: list[float]


class CompareModelsJson(Part):
    """Two served models on one text. kl: nats a token, a lower bound. same_greedy: share of the tokens, 0 to 1."""

    a: ServedSideJson
    b: ServedSideJson
    passages: int
    tokens: int
    perplexity_ratio: VerdictFigureJson
    kl: VerdictFigureJson
    same_greedy: VerdictFigureJson
    speed: SpeedRatioJson | None
    no_difference: bool


class Format(NamedTuple):
    """The format of one command's JSON."""

    command: str
    version: int
    kind: Any


FORMATS = (
    Format("plan", 1, PlanJson),
    Format("status", 1, StatusJson | list[StatusJson]),
    Format("doctor", 1, DoctorJson),
    Format("diagnose", 1, DiagnoseJson),
    Format("inspect", 1, InspectJson),
    Format("verify", 1, VerifyJson),
    Format("repair", 1, RepairJson),
    Format("quantize", 1, QuantizeJson),
    Format("lock", 1, LockJson),
    Format("keys list", 1, list[KeyJson]),
    Format("keys usage", 1, list[KeyUsage]),
    Format("profiles", 1, ProfilesHereJson),
    Format("profiles here", 1, ProfilesHereJson),
    Format("profiles list", 1, list[EntryJson]),
    Format("profiles show", 1, HardwareProfile),
    Format("models", 1, list[EntryJson]),
    Format("models list", 1, list[EntryJson]),
    Format("models show", 1, ModelSpec),
    Format("engines", 1, list[EntryJson]),
    Format("engines list", 1, list[EntryJson]),
    Format("engines show", 1, EngineSpec),
    Format("patches list", 1, PatchSetJson),
    Format("patches check", 1, list[VerdictJson]),
    Format("patches matrix", 1, dict[str, list[VerdictJson]]),
    Format("patches build", 1, list[FileJson]),
    Format("patches wheel", 1, FileJson),
    Format("patches filter", 1, FileJson),
    Format("bench", 1, BenchRecord),
    Format("bench list", 1, list[dict[str, Any]]),  # records without their runs and their host
    Format("bench show", 1, BenchRecord | SpecRecord | StartupRecord),
    Format("bench spec", 1, SpecRecord),
    Format("bench startup", 1, StartupRecord),
    Format("bench compare", 1, CompareJson),
    Format("compare", 1, CompareModelsJson),
    Format("tune", 1, TuneRecord),
    Format("top", 1, TopJson | NoAnswerJson),
    Format("qualify", 1, list[Check]),
)
