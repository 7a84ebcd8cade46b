"""What a runtime tells about the instance it started."""

from typing import Literal, Protocol, TypeAlias

State: TypeAlias = Literal["running", "exited", "restarting", "missing"]


class Observation(Protocol):
    """One look at a container or process. `exit_code` is negative or above 128 when a signal ended it."""

    @property
    def state(self) -> State:
        """`missing`: it is gone altogether."""

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""

    @property
    def oom_killed(self) -> bool:
        """The kernel killed a process of it for memory (docker's State.OOMKilled)."""

    @property
    def restart_count(self) -> int:
        """How often the runtime has started it again."""

    @property
    def instance_id(self) -> str | None:
        """Container id, or what else tells this instance from its successor."""
