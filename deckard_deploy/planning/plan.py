"""The LaunchPlan: one frozen value with everything about the deployment that will run.

Later steps read neither the profile, nor the environment, nor the command line. Pure: same input, same plan.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from deckard_deploy.catalog.specs import PARALLEL_OPTIONS, Container, LmHead, Task, lm_head_form, task_of


class PlanPart(BaseModel):
    """Base class of the plan and its parts."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class BindMount(PlanPart):
    """A host path seen inside the container."""

    source: str
    target: str
    read_only: bool = True


class PatchMount(BindMount):
    """A patched module mounted over the engine's own; the running engine attests its hash."""

    name: str
    module: str
    sha256: str


class Gpus(PlanPart):
    """A device reservation: all GPUs of the host, or a number of them."""

    count: int | Literal["all"]

    @property
    def ids(self) -> tuple[str, ...]:
        """An empty tuple: no GPU is chosen by name."""
        return ()


class ChosenGpus(PlanPart):
    """A reservation of certain GPUs of the host: numbers or UUIDs, as `nvidia-smi -L` prints them."""

    ids: tuple[str, ...]

    @property
    def count(self) -> int:
        """The number of chosen GPUs."""
        return len(self.ids)


class CdiGpus(PlanPart):
    """A reservation by CDI, for a docker without an nvidia runtime. ids: certain GPUs, or none for `count` of them."""

    count: int | Literal["all"]
    ids: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices as `nvidia-ctk cdi list` prints them."""
        if self.count == "all":
            return ("nvidia.com/gpu=all",)
        return tuple(f"nvidia.com/gpu={name}" for name in self.ids or range(self.count))


class Gateway(PlanPart):
    """nginx in front of the engine: the server that clients connect to.

    image, user: for the docker runtime. program: for the process runtime. folder: the host's, with keys and
    certificate. exposed: other machines reach the gateway, so every request needs a key. certificate,
    certificate_key: the user's own files; None: self-signed.
    """

    image: str | None
    program: str | None
    user: str | None
    folder: str
    exposed: bool
    tls: bool
    certificate: str | None
    certificate_key: str | None


class Healthcheck(PlanPart):
    """Docker's own probe: liveness for `docker ps`. startup.readiness proves readiness."""

    command: tuple[str, ...]
    interval_s: int
    timeout_s: int
    retries: int
    start_period_s: int


class SpeculativeConfig(NamedTuple):
    """The keys of `--speculative-config` that this tool reads; None where the option leaves a key out.

    model: the drafter's folder, as the engine sees it.
    """

    method: str | None
    model: str | None
    num_speculative_tokens: int | None


class LaunchPlan(PlanPart):
    """An engine, its arguments and files, the runtime that starts it, and the address of its endpoint."""

    deployment: str
    profile: str
    model: str
    engine: str
    vllm_version: str
    runtime: Literal["docker", "process"]
    image: str | None
    platform: str | None
    entrypoint: tuple[str, ...] = ("vllm", "serve")
    arguments: tuple[str, ...]
    environment: dict[str, str]
    mounts: tuple[BindMount, ...]
    scratch: tuple[str, ...] = ()
    """Folders in memory, gone with the container. Apart from these and `mounts`, the root is read-only."""
    user: str | None = None
    """`uid:gid` in the container; None is the image's own user."""
    patches: tuple[PatchMount, ...] = ()
    plugin: PatchMount | None = None
    """The wheel with a vLLM plugin for the checkpoint's format and lm_head; each engine process attests its hash."""
    request_filter: PatchMount | None = Field(default=None, exclude_if=lambda value: value is None)
    """The module that refuses unsafe requests in the engine's API server (plugins/request-filter).

    Left out where it is None: the plan of an earlier version keeps its hash, so that its release is not replaced.
    """
    gpus: Gpus | ChosenGpus | CdiGpus | None
    container: Container
    container_name: str
    healthcheck: Healthcheck | None
    gateway: Gateway | None = None
    served_name: str
    address: str
    port: int
    container_port: int
    startup_timeout_s: int
    compatibility: str | None = None
    role: Literal["engine", "replica", "front"] = Field(
        default="engine", exclude_if=lambda role: role == "engine"
    )
    """replica: one of equal engines, which its front and this tool alone use. front: their nginx, without an engine.

    Left out of the plan of any other engine, which keeps the hash that it had before there were replicas.
    """
    given_up: tuple[str, ...] = ()
    """Settings that disable a protection (catalog.safety)."""

    @property
    def hash(self) -> str:
        """Twelve hex digits of the canonical JSON's SHA-256: folder name, label, and test for equal plans."""
        return plan_hash(self.model_dump(mode="json"))

    @property
    def lm_head(self) -> LmHead | None:
        """The format to which the plugin quantizes lm_head, by the plugin's name."""
        return lm_head_form(self.plugin.name) if self.plugin else None

    @property
    def all_mounts(self) -> tuple[BindMount, ...]:
        """Every host path in the container: folders, patched modules, the plugin, the filter of requests."""
        return (*self.mounts, *self.built)

    @property
    def built(self) -> tuple[PatchMount, ...]:
        """The files that this tool builds for the engine."""
        return (*self.patches, *(mount for mount in (self.plugin, self.request_filter) if mount))

    @property
    def images(self) -> tuple[str, ...]:
        """The images of the engine and the gateway; empty for the process runtime."""
        images = []
        if self.image:
            images.append(self.image)
        if self.gateway and self.gateway.image:
            images.append(self.gateway.image)
        return tuple(images)

    @property
    def base_url(self) -> str:
        """The URL for OpenAI clients on this host."""
        host = "127.0.0.1" if self.address in ("0.0.0.0", "::") else self.address  # guard: F59
        if ":" in host:
            host = f"[{host}]"
        scheme = "https" if self.gateway and self.gateway.tls else "http"
        return f"{scheme}://{host}:{self.port}/v1"

    def option(self, name: str) -> str | None:
        """Return the first value of `--name` in `arguments`: "" for a flag, None without the option.

        name: a vLLM option without the dashes in front. Both `--name value` and `--name=value` are read.
        """
        for position, token in enumerate(self.arguments):
            if token == f"--{name}":
                following = self.arguments[position + 1 : position + 2]
                if following and not following[0].startswith("--"):
                    return following[0]
                return ""
            if token.startswith(f"--{name}="):
                return token.partition("=")[2]
        return None

    @property
    def speculative(self) -> SpeculativeConfig | None:
        """The drafter's settings from `--speculative-config`; None without that option."""
        text = self.option("speculative-config")
        if not text:
            return None
        config = json.loads(text)
        if not isinstance(config, dict):
            config = {}
        method = config.get("method")
        model = config.get("model")
        tokens = config.get("num_speculative_tokens")
        return SpeculativeConfig(
            method=method if isinstance(method, str) else None,
            model=model if isinstance(model, str) else None,
            num_speculative_tokens=tokens if isinstance(tokens, int) else None,
        )

    @property
    def task(self) -> Task:
        """What the endpoint serves."""
        return task_of(self.option("runner"), self.option("convert"))

    @property
    def ranks(self) -> int:
        """The number of GPUs that the engine is split over: the product of its parallel sizes."""
        sizes = [self.option(name) for name in PARALLEL_OPTIONS]
        return math.prod(int(size) for size in sizes if size)

    @property
    def data_parallel_size(self) -> int:
        """The number of data-parallel ranks: copies of the model behind one endpoint."""
        return int(self.option("data-parallel-size") or 1)

    def with_draft_tokens(self, tokens: int) -> "LaunchPlan":
        """Return the plan with `tokens` drafted tokens per step; 0: without its drafter, all else equal.

        Raises ValueError for a plan without `--speculative-config`.
        """
        option = "--speculative-config"
        at = self.arguments.index(option)
        replacement: tuple[str, ...] = ()
        if tokens:
            config = json.loads(self.arguments[at + 1]) | {"num_speculative_tokens": tokens}
            replacement = (option, json.dumps(config, sort_keys=True, separators=(",", ":")))
        arguments = (*self.arguments[:at], *replacement, *self.arguments[at + 2 :])
        return self.model_copy(update={"arguments": arguments})

    def launched(self, launch_id: str) -> "LaunchPlan":
        """Return the plan with one more served model name, by which readiness recognizes this very launch.

        vLLM lists every served name on /v1/models and answers with the first (vllm/entrypoints/openai/models/
        serving.py), so clients do not see the additional name. The plan's hash is taken before.
        """
        at = self.arguments.index(self.served_name, self.arguments.index("--served-model-name")) + 1
        arguments = (*self.arguments[:at], launch_id, *self.arguments[at:])
        return self.model_copy(update={"arguments": arguments})

    def located(self, folder: PurePosixPath, variables: Mapping[str, str]) -> "LaunchPlan":
        """Return the plan of a rendered folder with absolute paths.

        folder: the folder's absolute path. variables: the values in its .env.
        """

        def place(path: str) -> str:
            return str(folder / _substituted(path, variables))

        mounts = tuple(mount.model_copy(update={"source": place(mount.source)}) for mount in self.mounts)
        patches = tuple(patch.model_copy(update={"source": place(patch.source)}) for patch in self.patches)
        changes: dict[str, Any] = {"mounts": mounts, "patches": patches}
        if self.plugin:
            changes["plugin"] = self.plugin.model_copy(update={"source": place(self.plugin.source)})
        if self.request_filter:
            source = place(self.request_filter.source)
            changes["request_filter"] = self.request_filter.model_copy(update={"source": source})
        if self.user:
            changes["user"] = _substituted(self.user, variables)
        if self.gateway:
            user = _substituted(self.gateway.user or "", variables) or None
            changes["gateway"] = self.gateway.model_copy(
                update={"folder": place(self.gateway.folder), "user": user}
            )
        return self.model_copy(update=changes)


def _substituted(text: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        text = text.replace(f"${{{name}}}", value)
    return text


def plan_hash(plan: dict[str, Any]) -> str:
    """Return the hash of a plan in JSON form; plans of earlier versions of this tool have fewer fields."""
    canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
