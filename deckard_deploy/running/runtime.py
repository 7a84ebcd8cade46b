"""The protocol of a runtime, which docker and plain processes implement.

Its values are plain, so that another stage can read their fields without an import.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from deckard_deploy.running.releases import Release

State: TypeAlias = Literal["running", "restarting", "exited", "missing"]


@dataclass(frozen=True)
class Instance:
    """A started instance. id: a container id, or `<pid>-<start time>` of a supervisor."""

    id: str
    launch_id: str


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of a deployment now, read from the kernel or from docker, not from our records."""

    state: State
    exit_code: int | None = None
    oom_killed: bool = False
    restart_count: int = 0
    instance_id: str | None = None
    plan_hash: str | None = None
    launch_id: str | None = None
    image_id: str | None = None


MISSING = Observation(state="missing")


class Runtime(Protocol):
    """Start, observe and stop the server of one deployment. One object per deployment and kind."""

    def start(self, release: Release) -> Instance:
        """Start the release's recorded launch, while nothing of the deployment runs.

        Raises EnvironmentUnfitError (the host cannot run it) and StartFailedError (it was refused).
        """

    def stop(self) -> None:
        """Stop and remove everything of this deployment. Idempotent.

        Raises EnvironmentUnfitError if something cannot be stopped.
        """

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

    def close(self) -> None:
        """Close threads and connections; the server continues to run."""
