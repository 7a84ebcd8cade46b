"""What a runtime is: docker and plain processes answer the same questions.

The values are plain so that a stage beside this one can consume them by their fields alone.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from deckard_deploy.running.releases import Release

State: TypeAlias = Literal["running", "restarting", "exited", "missing"]


@dataclass(frozen=True)
class Instance:
    """What was started: a container id, or `<pid>-<start time>` of a supervisor; and of which launch it is."""

    id: str
    launch_id: str


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What there is right now, read from the kernel or the engine, not from our records."""

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
    """How the server of one deployment is started, watched and stopped. One object per deployment and kind."""

    def start(self, release: Release) -> Instance:
        """Start the release's recorded launch. Nothing of the deployment runs when this is called.

        Raises EnvironmentUnfitError (the host cannot run it) and StartFailedError (it was refused).
        """

    def stop(self) -> None:
        """Stop and remove whatever runs of this deployment; nothing is left. Idempotent.

        Raises EnvironmentUnfitError when something cannot be stopped.
        """

    def observe(self) -> Observation:
        """What runs now. Raises EnvironmentUnfitError when that cannot be asked."""

    def reload(self) -> None:
        """Have the gateway read its keys and certificate again; nothing else of the deployment notices."""

    def poll_lines(self, *, last: int | None = None) -> list[str]:
        """Log lines that came since the last call, from the launch's first line on; never blocks.

        last: at the first call, begin with so many of the lines that are there.
        """

    def tail(self, count: int) -> list[str]:
        """The last `count` log lines, also of a server that has exited."""

    def close(self) -> None:
        """Let go of threads and connections; what runs goes on."""
