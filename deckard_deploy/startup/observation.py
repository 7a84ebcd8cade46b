"""The state of a started instance, as its runtime reports it."""

from typing import Literal, Protocol, TypeAlias

State: TypeAlias = Literal["running", "exited", "restarting", "missing"]


class Ending(Protocol):
    """The end of a container or a process."""

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs. It is negative or above 128 after a signal."""

    @property
    def oom_killed(self) -> bool:
        """True if the kernel killed one of its processes for memory (docker's State.OOMKilled)."""


class Observation(Ending, Protocol):
    """The state of a container or a process at one moment."""

    @property
    def state(self) -> State:
        """The state; `missing`: it does not exist any more."""

    @property
    def gateway(self) -> State | None:
        """The state of the proxy in front of it; None: it has none."""

    @property
    def gateway_exit_code(self) -> int | None:
        """The exit code of that proxy; None while it runs."""

    @property
    def restart_count(self) -> int:
        """The number of times that the runtime has started it again."""

    @property
    def instance_id(self) -> str | None:
        """The container id, or another text that differs between this instance and its successor."""
