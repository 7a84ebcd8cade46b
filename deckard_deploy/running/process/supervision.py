"""The files by which the process runtime and its supervisor communicate.

releases/<plan hash>/process.json   ServerSpec: the command to run, written before the supervisor starts
releases/<plan hash>/gateway.log    the gateway's output; vllm.log has the server's
process.json                        ServerState: the server's state, written by the supervisor alone
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

SPEC, SERVER_LOG, GATEWAY_LOG = "process.json", "vllm.log", "gateway.log"
GATEWAY_TRIES = 3  # ends of a gateway in a row, after which it counts as exited
# Every descendant of the server inherits the variable, so that a stop finds every process that the server
# ever started. vLLM renames its processes with setproctitle, which would overwrite the environment in
# /proc/<pid>/environ; SPT_NOENV prevents that (setproctitle's README).
SERVER_VARIABLE, SUPERVISOR_VARIABLE = "DECKARD_DEPLOYMENT", "DECKARD_SUPERVISES"
TEARDOWN_S = 20.0  # of a process with much memory; as long as the attempts below
KEEP_ENVIRON = {"SPT_NOENV": "1"}


class Message(BaseModel):
    """The base of both messages."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ServerSpec(Message):
    """The command that the supervisor runs.

    restarts: the maximum of restarts after failures; None: no limit.
    gateway: the command of the program that listens for clients in the server's place, if there is one: nginx,
    or forward.py for a server in a network of its own. When the server ends, the supervisor ends it; when it
    ends, it is started again, and the server is left alone.
    socket: the file in the deployment's folder, their working folder, on which the server listens for it.
    own_network: the server runs in a network namespace of its own.
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
    own_network: bool = False


class ServerState(Message):
    """The state of the server. exit_code: 128 + n after signal n, as in docker.

    gateway_restarts: starts of the gateway since it has last run for a while; gateway_exit_code: of its last end.
    """

    supervisor: ProcessIdentity
    server: ProcessIdentity | None
    gateway: ProcessIdentity | None = None
    launch_id: str
    plan_hash: str
    state: Literal["running", "restarting", "exited"]
    exit_code: int | None = None
    oom_killed: bool = False
    restart_count: int = 0
    gateway_exit_code: int | None = None
    gateway_restarts: int = 0


def server_tag(deployment: Path) -> str:
    """Return the `NAME=value` in the environment of all processes of a deployment's server."""
    return f"{SERVER_VARIABLE}={deployment}"


def supervisor_tag(deployment: Path) -> str:
    """Return the `NAME=value` in the environment of a deployment's supervisor and its guard."""
    return f"{SUPERVISOR_VARIABLE}={deployment}"


def user_variable() -> dict[str, str]:
    """Return USER for a user without a name, otherwise nothing.

    PyTorch asks for the name (getpass.getuser) to choose the folder of its compiled code.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return {"USER": f"user-{os.getuid()}"}
    return {}


def restart_limit(policy: str) -> int | None:
    """Return the maximum of restarts of a docker restart policy, None without a limit.

    A server that ends without a stop has failed, even with exit code 0.
    """
    name, _, count = policy.partition(":")
    if name == "no":
        return 0
    if name == "on-failure" and count:
        return int(count)
    return None


def kill_tagged(tag: str, *, attempts: int = 20) -> list[ProcessIdentity]:
    """SIGKILL all processes with that tag except the caller, and wait until they are torn down.

    Return the processes that did not die.
    """
    left = processes_with_variable(tag)
    for _ in range(attempts):
        if not left:
            break
        for process in left:
            send_signal(process, signal.SIGKILL)
        deadline = time.monotonic() + 1
        left = [process for process in left if not wait_gone(process, max(0.0, deadline - time.monotonic()))]
        left = sorted({*left, *processes_with_variable(tag)}, key=str)
    wait_for_exits(TEARDOWN_S)
    return left
