"""The protocol of a runtime, which docker and plain processes implement.

Its values are plain, so that another stage can read their fields without an import.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, Protocol, TypeAlias

from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.releases import Release
from deckard_deploy.system.unknown import Unknown

State: TypeAlias = Literal["running", "restarting", "exited", "missing"]


@dataclass(frozen=True)
class Instance:
    """A started instance. id: a container id, or `<pid>-<start time>` of a supervisor."""

    id: str
    launch_id: str


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of a deployment now, read from the kernel or from docker, not from our records.

    state, exit_code: of the engine. gateway, gateway_exit_code: of the proxy in front of it; None: it has none.
    """

    state: State
    exit_code: int | None = None
    gateway: State | None = None
    gateway_exit_code: int | None = None
    oom_killed: bool = False
    restart_count: int = 0
    instance_id: str | None = None
    plan_hash: str | None = None
    launch_id: str | None = None
    image_id: str | None = None


MISSING = Observation(state="missing")


class PythonCommand(NamedTuple):
    """A command line that starts the engine's own Python, and the environment variables that it needs."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


class VllmFiles(NamedTuple):
    """The place of vLLM's own files: a folder on this host, or an image of the docker engine at `endpoint`."""

    package: PurePosixPath | None = None
    image: str | None = None
    endpoint: str | None = None


class DiskNeed(NamedTuple):
    """Bytes that will be written to a folder, which need not exist yet."""

    what: str
    folder: Path
    size: int


class Runtime(Protocol):
    """Start, observe and stop the server of one deployment. One object per deployment and kind."""

    @property
    def endpoint(self) -> str | None:
        """The socket of the docker daemon, `unix://…`; None for plain processes. Raises EnvironmentUnfitError."""

    def refuse_foreign(self) -> None:
        """Raise EnvironmentUnfitError if something of this deployment's name was started by somebody else."""

    def start(self, release: Release) -> Instance:
        """Start the release's recorded launch, while nothing of the deployment runs.

        Raises EnvironmentUnfitError (the host cannot run it) and StartFailedError (it was refused).
        """

    def stop(self) -> None:
        """Stop and remove everything of this deployment. Idempotent.

        Raises EnvironmentUnfitError if something cannot be stopped.
        """

    def start_gateway(self, release: Release) -> None:
        """Start the gateway of the running release again; the engine is not affected.

        Raises EnvironmentUnfitError.
        """

    def connections(self) -> int:
        """Return the number of requests that the engine has, by its open connections."""

    def drain(self) -> None:
        """Take no new requests; those that were taken go on. Does nothing where only a stop can do that."""

    def observe(self) -> Observation:
        """Return the current state. Raises EnvironmentUnfitError if it cannot be read."""

    def reload(self) -> None:
        """Make the gateway read its keys and certificate again; the engine is not affected."""

    def poll_lines(self, *, last: int | None = None) -> list[str]:
        """Return the clean log lines since the last call, from the launch's first line on; never block.

        last: at the first call, return only so many of the lines that already exist.
        """

    def tail(self, count: int) -> list[str]:
        """Return the last `count` clean log lines, also of a server that has exited."""

    def tail_gateway(self, count: int) -> list[str]:
        """Return the last `count` clean lines of the gateway's log, also of one that has exited."""

    def require_supported(self) -> None:
        """Raise EnvironmentUnfitError for a container engine that this tool does not support."""

    def ensure_engine(self, plan: LaunchPlan, say: Callable[[str], None]) -> None:
        """Pull the plan's images, or install its environment, unless they are here.

        Raises EnvironmentUnfitError, NetworkError, IntegrityError.
        """

    def image_digests(self, image: str) -> list[str]:
        """Return the digests under which a local image is known in its repository."""

    def missing_image(self, plan: LaunchPlan) -> DiskNeed | Unknown | None:
        """Return the disk space that pulling the plan's image will take; None when nothing has to be pulled."""

    def vllm_files(self, plan: LaunchPlan) -> VllmFiles:
        """Return where vLLM's own files of the plan's engine are."""

    def python(self, plan: LaunchPlan) -> PythonCommand:
        """Return the command that starts the Python of the running engine, in the engine's environment."""

    def run_python(self, plan: LaunchPlan, argv: tuple[str, ...]) -> str:
        """Run the engine's Python with these arguments. Return its standard output, or else its errors.

        Raises StartFailedError when the engine is gone, EnvironmentUnfitError.
        """

    def close(self) -> None:
        """Close threads and connections; the server continues to run."""
