"""The LaunchPlan: one frozen value that says everything about what will run.

Nobody downstream asks the profile, the environment or the command line again. Pure: same input, same plan.
"""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from deckard_deploy.catalog.specs import Container


class Part(BaseModel):
    """Base of the plan's parts."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class BindMount(Part):
    """A host path seen inside the container."""

    source: str
    target: str
    read_only: bool = True


class PatchMount(BindMount):
    """A patched module over the engine's own; its hash is part of the plan, and proven inside the engine."""

    name: str
    module: str
    sha256: str


class Gpus(Part):
    """A device reservation: all GPUs of the host, or a number of them."""

    count: int | Literal["all"]

    @property
    def ids(self) -> tuple[str, ...]:
        """None in particular."""
        return ()


class ChosenGpus(Part):
    """A reservation of these GPUs of the host: numbers or UUIDs, as `nvidia-smi -L` prints them."""

    ids: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many."""
        return len(self.ids)


class Gateway(Part):
    """nginx in front of the engine: what clients reach instead of it.

    image, user: of the docker runtime; program: of the process runtime. folder: the host's, with keys and certificate.
    exposed: other machines reach it, so a key is always asked for. certificate, certificate_key: the user's own files;
    None: self-signed.
    """

    image: str | None
    program: str | None
    user: str | None
    folder: str
    exposed: bool
    tls: bool
    certificate: str | None
    certificate_key: str | None


class Healthcheck(Part):
    """Docker's own probe: liveness for `docker ps`; readiness is proven by startup.readiness."""

    command: tuple[str, ...]
    interval_s: int
    timeout_s: int
    retries: int
    start_period_s: int


class LaunchPlan(Part):
    """What runs, on which runtime, seen from which address."""

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
    """Folders in memory, gone with the container; beside these and `mounts` its root is read-only."""
    user: str | None = None
    """`uid:gid` in the container; None is the image's own user."""
    patches: tuple[PatchMount, ...] = ()
    plugin: PatchMount | None = None
    """The wheel that teaches the engine this checkpoint's format; proven in each of its processes."""
    gpus: Gpus | ChosenGpus | None
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
    given_up: tuple[str, ...] = ()
    """Settings that give up a protection (catalog.safety)."""

    @property
    def hash(self) -> str:
        """Twelve hex digits of the SHA-256 over the canonical JSON: folder name, label, and reason for a no-op."""
        return plan_hash(self.model_dump(mode="json"))

    @property
    def all_mounts(self) -> tuple[BindMount, ...]:
        """What the container sees of the host: folders, patched modules, the plugin."""
        return (*self.mounts, *self.patches, *((self.plugin,) if self.plugin else ()))

    @property
    def images(self) -> tuple[str, ...]:
        """The engine's and the gateway's, as far as they run from images."""
        return tuple(image for image in (self.image, self.gateway.image if self.gateway else None) if image)

    @property
    def base_url(self) -> str:
        """Where OpenAI clients point, seen from this host."""
        host = "127.0.0.1" if self.address in ("0.0.0.0", "::") else self.address  # guard: F59
        scheme = "https" if self.gateway and self.gateway.tls else "http"
        return f"{scheme}://[{host}]:{self.port}/v1" if ":" in host else f"{scheme}://{host}:{self.port}/v1"

    def launched(self, launch_id: str) -> "LaunchPlan":
        """The plan with one more served model name, by which readiness knows that it talks to this very launch.

        vLLM lists every served name on /v1/models and answers with the first (vllm/entrypoints/openai/models/
        serving.py), so clients see nothing of it. The plan's hash is taken before.
        """
        at = self.arguments.index(self.served_name, self.arguments.index("--served-model-name")) + 1
        arguments = (*self.arguments[:at], launch_id, *self.arguments[at:])
        return self.model_copy(update={"arguments": arguments})


def plan_hash(plan: dict[str, Any]) -> str:
    """The same of a plan as JSON has it: one that an earlier version of this tool wrote has fewer fields."""
    canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
