"""What the process runtime and its supervisor tell each other, on disk.

releases/<plan hash>/process.json   ServerSpec: what to run, written before the supervisor starts
process.json                        ServerState: how it goes, written by the supervisor alone
process.lock                        flock, from before the supervisor exists until its last process is gone
"""

import os
import pwd
import signal
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from deckard_deploy.system.processes import (
    ProcessIdentity,
    processes_with_variable,
    send_signal,
    wait_for_exits,
    wait_gone,
)

SPEC, SERVER_LOG = "process.json", "vllm.log"
# Every descendant of the server inherits it, so nothing that the server ever started escapes a stop. vLLM renames
# its processes with setproctitle, which would overwrite the environment in /proc/<pid>/environ; SPT_NOENV forbids it
# (setproctitle's README).
MARK, SUPERVISOR_MARK = "DECKARD_DEPLOYMENT", "DECKARD_SUPERVISES"
TEARDOWN_S = 20.0  # of a process with much memory; the attempts below are as long
KEEP_ENVIRON = {"SPT_NOENV": "1"}


class Message(BaseModel):
    """Base of the two."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ServerSpec(Message):
    """What the supervisor runs. `restarts`: how often after a failure; None: for ever.

    gateway: the proxy that runs beside the server, if there is one; when either ends, so does the other. socket: the
    file on which the server listens for it; in the deployment's folder, as both run there.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    launch_id: str
    plan_hash: str
    restarts: int | None
    grace_s: float
    log_bytes: int
    gateway: tuple[str, ...] = ()
    socket: str | None = None


class ServerState(Message):
    """How it goes. `exit_code` is 128 + n after signal n, as docker says it."""

    supervisor: ProcessIdentity
    server: ProcessIdentity | None
    gateway: ProcessIdentity | None = None
    launch_id: str
    plan_hash: str
    state: Literal["running", "restarting", "exited"]
    exit_code: int | None = None
    oom_killed: bool = False
    restart_count: int = 0


def server_mark(deployment: Path) -> str:
    """`NAME=value` in the environment of everything that a deployment's server started."""
    return f"{MARK}={deployment}"


def supervisor_mark(deployment: Path) -> str:
    """The same for its supervisor and that one's guard."""
    return f"{SUPERVISOR_MARK}={deployment}"


def user_name() -> dict[str, str]:
    """A name for a user that has none: PyTorch asks for one (getpass.getuser) where it keeps compiled code."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return {"USER": f"user-{os.getuid()}"}
    return {}


def restarts_of(policy: str) -> int | None:
    """Docker's words -> how many restarts (None: no limit). One that nobody stopped has failed, even with code 0."""
    name, _, count = policy.partition(":")
    if name == "no":
        return 0
    return int(count) if name == "on-failure" and count else None


def kill_marked(mark: str, *, attempts: int = 20) -> list[ProcessIdentity]:
    """SIGKILL everything with that mark, but not the caller, and wait until it is torn down; what would not die."""
    left = processes_with_variable(mark)
    for _ in range(attempts):
        if not left:
            break
        for process in left:
            send_signal(process, signal.SIGKILL)
        deadline = time.monotonic() + 1
        left = [process for process in left if not wait_gone(process, max(0.0, deadline - time.monotonic()))]
        left = sorted({*left, *processes_with_variable(mark)}, key=str)
    wait_for_exits(TEARDOWN_S)
    return left
