"""The specs of profiles, models and engines: frozen, strict, closed.

The YAML files in this folder are instances of the specs, and scripts/generate.py writes JSON schemas for
editors from them. Option names below `serve` are vLLM's own, without the dashes in front.
"""

from ipaddress import ip_address
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from deckard_deploy.catalog.pattern import MatchesText
from deckard_deploy.system.versions import version_numbers

Name: TypeAlias = Annotated[
    str, MatchesText(r"[a-z0-9][a-z0-9._-]{0,62}", "a name of a-z, 0-9, '.', '_' and '-'")
]
ModelReference: TypeAlias = Annotated[
    str, MatchesText(r"[^\x00-\x1f]{1,4096}", "a name, a folder, a file or owner/name")
]
EnvironmentName: TypeAlias = Annotated[
    str, MatchesText(r"[A-Za-z_][A-Za-z0-9_]*", "a name of A-Z, a-z, 0-9 and '_'")
]


def _ip_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address was expected") from None


IpAddress: TypeAlias = Annotated[str, AfterValidator(_ip_address)]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]
AbsolutePath: TypeAlias = Annotated[str, MatchesText(r"/[^:\x00-\x1f]*", "an absolute path without ':'")]
HomePath: TypeAlias = Annotated[
    str, MatchesText(r"(~/|/)[^:\x00-\x1f]*", "a path that begins with / or ~/, without ':'")
]
Ipc: TypeAlias = Literal["private", "shareable", "host"]
Network: TypeAlias = Literal["bridge", "host"]
ShmSize: TypeAlias = Annotated[str, MatchesText(r"[1-9][0-9]{0,5}[mg]", "a size like 512m or 16g")]
MAX_SECONDS = 1_000_000  # compose counts nanoseconds in 64 bits
Restart: TypeAlias = Annotated[
    str,
    MatchesText(
        r"no|always|unless-stopped|on-failure(:[0-9]{1,9})?", "no, always, unless-stopped or on-failure:N"
    ),
]
Serve: TypeAlias = dict[str, JsonValue]  # the engine's option schema knows the names
PARALLEL_OPTIONS = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
MAX_REPLICAS = 64
Replicas: TypeAlias = Annotated[int, Field(ge=1, le=MAX_REPLICAS)] | Literal["all"]
Environment: TypeAlias = dict[EnvironmentName, str]
# github distribution/reference, reference.go: domain, path, tag, digest.
_DOMAIN = r"(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)(:[0-9]+)?|[A-Za-z0-9-]+:[0-9]+"
_PATH = "[a-z0-9]+([._-]+[a-z0-9]+)*"
_TAG, _DIGEST = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", "sha256:[0-9a-f]{64}"
ImageReference: TypeAlias = Annotated[
    str,
    MatchesText(
        f"(({_DOMAIN})/)?{_PATH}(/{_PATH})*(:{_TAG})?(@{_DIGEST})?",
        "an image reference like registry.example:5000/name:tag",
    ),
]


class Spec(BaseModel):
    """Base class of everything read from YAML: without coercion, closed to unknown keys, and frozen."""

    # Built at first use: a verb uses few specs, and building all of them takes as long as `import click`.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class Measured(Spec):
    """A measured figure and its source."""

    value: float
    source: str


class Hardware(Spec):
    """The numbers of one machine that planning needs."""

    gpu: str = Field(description="what nvidia-smi calls the GPU, or 'none'")
    architecture: Literal["amd64", "arm64", "any"]
    compute_capability: str | None = Field(description="for example '12.1'; null without a GPU")
    gpu_count: int = Field(ge=0)
    machine_gpus: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda value: (
            value is None
        ),  # what an earlier version has recorded of a profile stays equal
        description="the most GPUs that a machine of this kind has, for --replicas; null: not known",
    )
    memory: Literal["unified", "discrete", "host"]
    memory_gib: float | None = Field(
        gt=0, le=1e6, description="GiB per GPU, or of the whole machine when unified"
    )
    bandwidth_gb_s: float | None = Field(
        gt=0, le=1e6, description="peak memory bandwidth in GB/s (10^9), per GPU"
    )
    decode_efficiency: Measured | None = Field(
        default=None,
        description="share of the bandwidth's ceiling that decoding reaches; null: nobody measured it",
    )
    wedged_below_w: Measured | None = Field(
        default=None,
        description="watts: a busy GPU that draws less is wedged; null: nobody measured it",
    )


class Publish(Spec):
    """The address of the endpoint on this host, and its TLS settings."""

    address: IpAddress = Field(
        default="127.0.0.1", description="loopback address: clients on this machine only"
    )
    port: Port = Field(default=8000, description="port of the endpoint")
    expose: IpAddress | None = Field(
        default=None, description="address that other machines reach; every client needs a key"
    )
    tls: bool | None = Field(
        default=None, description="default: true if the endpoint is exposed or a certificate is given"
    )
    certificate: AbsolutePath | None = Field(
        default=None, description="PEM file with the chain; default: a self-signed certificate"
    )
    certificate_key: AbsolutePath | None = Field(
        default=None, description="PEM file with the certificate's key"
    )


class Container(Spec):
    """Settings of the container; the process runtime has none."""

    ipc: Ipc = "private"
    network: Network = "bridge"
    shm_size: ShmSize | None = None
    restart: Restart = "on-failure:2"
    stop_grace_period_s: int = Field(default=30, ge=0, le=MAX_SECONDS)


class ContainerChanges(Spec):
    """The settings of the profile's container that a deployment changes; every key is optional."""

    ipc: Ipc | None = Field(default=None, description="namespace of shared memory; default: the profile's")
    network: Network | None = Field(default=None, description="docker's network; default: the profile's")
    shm_size: ShmSize | None = Field(default=None, description="size of /dev/shm, such as 8g")
    restart: Restart | None = Field(default=None, description="docker's restart policy, such as on-failure:2")
    stop_grace_period_s: int | None = Field(
        default=None, ge=0, le=MAX_SECONDS, description="seconds that requests have to end at a stop"
    )


def rank_count(serve: Serve) -> int:
    """Return the number of GPUs that the engine is split over: the product of its parallel sizes."""
    ranks = 1
    for name in PARALLEL_OPTIONS:
        size = serve.get(name, 1)
        if isinstance(size, int):
            ranks *= size
    return ranks


# What an engine serves: text, vectors of texts, or how well a document answers a query.
Task: TypeAlias = Literal["generate", "embed", "score"]


def task_of(runner: JsonValue, convert: JsonValue) -> Task:
    """Return the task of an engine with these values of `--runner` and `--convert`; None: not given.

    A conversion alone selects the pooling runner (0.32.0, config/model.py, _get_runner_type).
    """
    if runner != "pooling" and convert not in ("embed", "classify"):
        return "generate"
    return "score" if convert == "classify" else "embed"


class HardwareProfile(Spec):
    """A kind of machine, and the settings that serve a 4-bit Gemma 4 well on it."""

    name: Name
    description: str
    hardware: Hardware
    model: Name = Field(description="served when nothing else is asked for")
    engine: Name = Field(description="used when nothing else is asked for")
    drafter: Name | None = Field(
        default=None, description="used when nothing else is asked for, with a model that lists it"
    )
    engine_because: str = Field(default="", description="why this engine, and this drafter")
    serve: Serve = Field(default_factory=dict)
    environment: Environment = Field(default_factory=dict)
    container: Container = Field(default_factory=Container)
    startup_timeout_s: int = Field(
        ge=1, le=MAX_SECONDS, description="without progress for this long, start-up has failed"
    )


class HubRepository(Spec):
    """Weights on the hub."""

    repo: Annotated[str, MatchesText("[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+", "owner/name")]
    revision: str | None = Field(default=None, description="a commit; null until `lock` resolves it")


class LocalFolder(Spec):
    """Weights in a folder of the user's own; this tool reads them there and writes nothing."""

    folder: AbsolutePath


class Generated(Spec):
    """Weights that this tool writes itself."""

    generator: Literal["tiny-gemma4", "tiny-assistant"]
    kind: Literal["good", "short", "random"] = Field(default="good", description="of a tiny-assistant")
    form: Literal["dense", "experts", "per-layer"] = Field(default="dense", description="of a tiny-gemma4")


# ModelOpt's formats have names of their own, because a patch or a plugin may be needed; the rest are vLLM's
# quantization methods (0.32.0, model_executor/layers/quantization/__init__.py). "other": a format that this
# tool does not know.
Quantization: TypeAlias = Literal[
    "none",
    "nvfp4",
    "nvfp4_awq",
    "nvfp4_svd",
    "modelopt_fp8",
    "compressed-tensors",
    "fp8",
    "gptq",
    "awq",
    "other",
]


# To what lm_head is quantized at load; both forms are of this project's plugin (plugins/lm-head).
LmHead: TypeAlias = Literal["fp8", "nvfp4"]
# The plugin that quantizes lm_head to a format, by its name in a plan.
LM_HEAD_NAMES: dict[LmHead, str] = {"fp8": "lm-head-fp8", "nvfp4": "lm-head-nvfp4"}


def lm_head_form(name: str) -> LmHead | None:
    """Return the format to which plugin `name` quantizes lm_head; None: it does not."""
    for form, own in LM_HEAD_NAMES.items():
        if own == name:
            return form
    return None


class Architecture(Spec):
    """The numbers of a Gemma 4 text tower that planning needs; counts, not bytes."""

    layers: int
    sliding_layers: int
    sliding_window: int = Field(description="tokens")
    hidden_size: int
    attention_heads: int
    kv_heads: int = Field(description="per sliding layer")
    global_kv_heads: int = Field(description="per full-attention layer")
    head_dim: int = Field(description="of sliding layers")
    global_head_dim: int = Field(description="of full-attention layers")
    kv_shared_layers: int = Field(description="the last layers that reuse another layer's KV cache")
    k_eq_v: bool = Field(description="full-attention layers use their keys' weights for the values too")
    intermediate_size: int
    vocabulary_size: int
    per_layer_input_size: int = Field(
        default=0, description="width of the embedding that each layer adds; 0: none"
    )
    experts: int = Field(default=0, description="of each layer, next to its feed-forward network; 0: none")
    experts_per_token: int = 0
    expert_intermediate_size: int = 0


class Speculative(Spec):
    """A drafter's method: vLLM's speculative config without the drafter's folder."""

    method: str
    num_speculative_tokens: int = Field(ge=1)
    quantization: str | None = None
    attention_backend: str | None = Field(default=None, description="of the drafter; null: the target's")
    prompt_lookup_max: int | None = Field(
        default=None, ge=1, description="of ngram: tokens that must match, at most"
    )
    prompt_lookup_min: int | None = Field(default=None, ge=1, description="of ngram: and at least")


NO_LAYERS = Architecture(
    layers=0,
    sliding_layers=0,
    sliding_window=0,
    hidden_size=0,
    attention_heads=0,
    kv_heads=0,
    global_kv_heads=0,
    head_dim=0,
    global_head_dim=0,
    kv_shared_layers=0,
    k_eq_v=False,
    intermediate_size=0,
    vocabulary_size=0,
)


class ModelSpec(Spec):
    """A checkpoint and the options that belong to it on every machine."""

    name: Name
    description: str
    role: Literal["target", "drafter"] = "target"
    weights: HubRepository | LocalFolder | Generated | None = Field(
        description="null: a drafter that is an algorithm, without any"
    )
    size_gb: float = Field(description="10^9 bytes on disk")
    component_bytes: dict[str, int] = Field(
        default_factory=dict,
        description="bytes of the tensors: language, experts, embeddings, vision, audio; left out: not read",
    )
    quantization: Quantization
    architecture: Architecture = Field(
        default=NO_LAYERS,
        description="left out: one that planning does not know, or a drafter of which only the size is needed",
    )
    context_limit: int | None = Field(description="tokens; null: not known")
    served_name: str
    serve: Serve = Field(default_factory=dict)
    drafters: tuple[Name, ...] = ()
    speculative: Speculative | None = Field(default=None, description="of a drafter")
    measured_speedup: Measured | None = Field(
        default=None, description="of a drafter: tokens per second, relative to none, as it is set here"
    )
    served_by: tuple[Name, ...] = Field(default=(), description="engines that can load it; empty: any")


class EngineSpec(Spec):
    """A vLLM release, the machines and the runtime that it needs, and the settings that it accepts."""

    name: Name
    description: str
    vllm_version: str = Field(description="the release whose parser and envs.py the schema was read from")
    runtime: Literal["docker", "process"]
    image: ImageReference | None = Field(default=None, description="null for the process runtime")
    image_recipe: str | None = Field(
        default=None, description="the script of a checkout that builds the image, if no registry has it"
    )
    architectures: tuple[Literal["amd64", "arm64"], ...]
    gpu: bool = Field(default=True, description="whether it runs on GPUs, and on nothing else")
    compute_capabilities: tuple[str, ...] = Field(
        default=(), description="of its only GPUs; empty: all of the release"
    )
    vllm_root: AbsolutePath | None = Field(
        default=None, description="the folder of the vllm package in the image"
    )
    home: AbsolutePath | None = Field(
        default=None, description="HOME in the container: a folder that is made for it, with the caches below"
    )
    user: Literal["root", "caller"] = Field(
        default="root", description="who runs in the container: root, or the user who called `up`"
    )
    option_schema: Name = Field(description="file stem under schemas/")
    environment: tuple[EnvironmentName, ...] = Field(
        default=(), description="variables read by libraries under vLLM, which its envs.py does not list"
    )
    patch_set: Name | None = None
    plugin: Name | None = Field(
        default=None,
        description="this project's vLLM plugin for formats that the release does not know; or null",
    )
    dependency_lock: Name | None = Field(default=None, description="folder under running/process/locks")
    drafter_methods: tuple[str, ...] = ()
    quantizations: tuple[Quantization, ...] = Field(
        description="formats that it loads, with its patches or its plugin"
    )

    retires: str = Field(default="", description="when it leaves the catalog")
    api_limits: tuple[str, ...] = Field(
        default=(), description="what its API refuses or breaks off, for `plan`"
    )

    def is_at_least(self, release: str) -> bool:
        """Return True if its vLLM is this release or a later one."""
        return version_numbers(self.vllm_version) >= version_numbers(release)


class Deployment(Spec):
    """deckard.yaml: a deployment and its changes of the defaults. Every key is optional."""

    profile: Name | None = Field(
        default=None, description="hardware profile; default: the one of this machine"
    )
    name: Name | None = Field(default=None, description="name of the deployment; default: the profile's name")
    model: ModelReference | None = Field(
        default=None,
        description="a model's name, a folder, a model file, or owner/name[@revision] on the hub",
    )
    drafter: Name | Literal["none"] | None = Field(
        default=None, description="name or method (`mtp`) of a drafter; `none`: no speculative decoding"
    )
    drafter_tokens: int | None = Field(
        default=None, ge=1, le=16, description="drafted tokens a step; default: the drafter's own number"
    )
    lm_head: LmHead | None = Field(
        default=None,
        description="quantize lm_head at load: faster, more memory, other text; default: as in the checkpoint",
    )
    engine: Name | None = Field(default=None, description="release of vLLM; default: the profile's engine")
    replicas: Replicas | None = Field(
        default=None,
        description="equal engines behind one front, each with GPUs of its own; all: as many as the GPUs allow",
    )
    image: ImageReference | None = Field(
        default=None, description="image of the engine, in a mirror or pinned by digest"
    )
    gateway_image: ImageReference | None = Field(
        default=None, description="image of nginx, in a mirror or pinned by digest"
    )
    gateway: Literal["nginx", "off"] | None = Field(
        default=None,
        description="process runtime only; default: nginx if it was installed at the deployment's first start",
    )
    gpu_driver: Literal["nvidia", "cdi"] | None = Field(
        default=None,
        description="how docker gives a container its GPUs; default: the nvidia runtime, else CDI",
    )
    publish: Publish = Field(default_factory=Publish)
    serve: Serve = Field(
        default_factory=dict,
        description="options of `vllm serve` without the dashes; null removes an option of the profile",
    )
    environment: dict[EnvironmentName, str | None] = Field(
        default_factory=dict,
        description="variables that vLLM or a library reads; null removes a variable of the profile",
    )
    container: ContainerChanges = Field(default_factory=ContainerChanges)
    startup_timeout_s: int | None = Field(
        default=None,
        ge=1,
        le=MAX_SECONDS,
        description="seconds without progress after which a start has failed; default: the profile's",
    )
    allow_unsafe: tuple[str, ...] = Field(
        default=(),
        description="settings that may disable a protection, such as `container.network`",
    )


QuantizerPattern: TypeAlias = Annotated[
    str, MatchesText(r"[A-Za-z0-9_.*\[\]-]{1,200}", "a pattern of module names, such as *vision_tower*")
]


class RecipeSpec(Spec):
    """How `quantize` makes a checkpoint: the algorithm of ModelOpt and its choices."""

    name: Name
    description: str
    method: Literal["max", "awq_lite", "awq_full", "svdquant"] = Field(
        description="how scales are found; max: the largest value of each block, with no search. The others need a GPU"
    )
    alpha_step: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="awq_lite, awq_full: step of the exponent (0 to 1) by which an input channel's size scales it",
    )
    min_clip_ratio: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="awq_full: the smallest share of a tensor's maximum that is tried as its maximum",
    )
    shrink_step: float | None = Field(
        default=None, gt=0, le=1, description="awq_full: step from that share up to 1"
    )
    lowrank: int | None = Field(
        default=None, ge=1, le=1024, description="svdquant: rank of the part of a weight that stays in BF16"
    )
    block_size: Literal[16] = Field(description="weights that share a scale; NVFP4 has 16")
    exclude: tuple[QuantizerPattern, ...] = Field(
        description="modules that keep BF16, by patterns of their names; embeddings and norms always do"
    )
    kv_cache: Literal["none"] = Field(
        description="none: no scales of the KV cache, so that the engine's --kv-cache-dtype decides"
    )
    samples: int = Field(ge=1, le=1_000_000, description="texts of the calibration data that are used")
    sequence_length: int = Field(
        ge=8, le=131072, description="tokens of a text that are used; the rest is cut off"
    )
    seed: int = Field(ge=0, le=2**31, description="chooses the texts where there are more than `samples`")

    @property
    def needs_cuda(self) -> bool:
        """True if ModelOpt runs the recipe on a GPU alone (0.47.0 torch/quantization/tensor_quant.py:172)."""
        return self.method != "max"

    @model_validator(mode="after")
    def _require_only_its_settings(self) -> "RecipeSpec":
        for setting, methods in _SETTINGS_OF_METHODS.items():
            given = getattr(self, setting) is not None
            if given and self.method not in methods:
                raise ValueError(f"{setting} is a setting of {' and '.join(methods)}, not of {self.method}")
            if not given and self.method in methods:
                raise ValueError(f"{self.method} needs {setting}")
        return self


_SETTINGS_OF_METHODS = {
    "alpha_step": ("awq_lite", "awq_full"),
    "min_clip_ratio": ("awq_full",),
    "shrink_step": ("awq_full",),
    "lowrank": ("svdquant",),
}


class Compatibility(Spec):
    """A launch line from elsewhere, kept as it is: it replaces the settings of profile and model."""

    name: Name
    description: str
    profile: Name
    model: Name
    engine: Name
    model_source: HomePath = Field(description="host folder; a shell or compose expands ~/")
    model_mount: AbsolutePath
    model_mount_read_only: bool
    container_name: str
    publish: Publish
    serve: Serve
    environment: Environment
    container: Container
