"""The supervisor of a plain server process: `python -m deckard_deploy.running.process.supervisor`.

It outlives the command that started it, keeps the server's log bounded, restarts the server as often as the plan
says, writes down how it goes, and takes every process of the server with it when it ends. Arguments: the release
folder and the descriptor of the held process.lock. Prints `started` or why not, then closes stdout.

    up ──> launcher ──fork──> supervisor ──fork──> guard      holds the lock; kills what a killed supervisor leaves
                                         └─Popen─> server     own session; dies with the supervisor (PDEATHSIG)
"""

import contextlib
import ctypes
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

from deckard_deploy.errors import DeployError, EnvironmentUnfitError
from deckard_deploy.running.process.bounded_log import BoundedLog
from deckard_deploy.running.process.supervision import (
    SERVER_LOG,
    SPEC,
    ServerSpec,
    ServerState,
    kill_marked,
    server_mark,
)
from deckard_deploy.system.files import write_atomically
from deckard_deploy.system.processes import identity_of

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)
_STARTED = b"started\n"
AGAIN_S = 2.0  # between two tries to write on a full disk


class Supervisor:
    """Runs one ServerSpec until it has ended for good or somebody sends SIGTERM. Single-threaded."""

    def __init__(self, release: Path) -> None:
        self._deployment = release.parent.parent
        self._spec = ServerSpec.model_validate_json((release / SPEC).read_text())
        self._log = BoundedLog(release / SERVER_LOG, self._spec.log_bytes)
        self._me = identity_of(os.getpid())
        self._restarts = 0
        self._server: int | None = None
        self._gateway: int | None = None
        self._status: int | None = None
        self._stop_at: float | None = None  # monotonic; set by SIGTERM
        self._told = False
        self._unwritten = ""  # what process.json should say, while a disk is full
        self._selector = selectors.DefaultSelector()
        self._wake, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # guard: F57
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)

    def run(self) -> None:
        """Start, serve, restart, end."""
        while True:
            killed_before = _oom_kills()
            output = self._start()
            _tell(_STARTED)
            self._serve(output)
            code = self._exit_code()
            oom_killed = code != 0 and _oom_kills() > killed_before
            if not self._again():
                self._write("exited", exit_code=code, oom_killed=oom_killed)
                return
            self._restarts += 1
            self._write("restarting", exit_code=code, oom_killed=oom_killed)
            self._pause(min(60.0, 0.1 * 2**self._restarts))  # docker's back-off: restartmanager.go
            if self._stop_at is not None:
                self._write("exited", exit_code=code, oom_killed=oom_killed)
                return

    def _start(self) -> int:
        self._server = self._gateway = self._status = None
        if self._spec.socket:  # a server that was killed leaves it, and the next could not bind
            (self._deployment / self._spec.socket).unlink(missing_ok=True)
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            self._server = self._spawn(self._spec.argv, write_end, signal.SIGKILL)
            if self._spec.gateway:  # nginx ends its workers on SIGTERM, and would leave them on SIGKILL
                self._gateway = self._spawn(self._spec.gateway, write_end, signal.SIGTERM)
        finally:
            os.close(write_end)
        os.set_blocking(read_end, False)
        self._write("running", server=self._server)
        return read_end

    def _spawn(self, argv: tuple[str, ...], output: int, end: signal.Signals) -> int:
        """A child that gets the signal `end` when this process dies."""
        me = os.getpid()

        def die_with_supervisor() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, end, 0, 0, 0)
            if os.getppid() != me:  # it died before the line above
                os._exit(1)

        child = subprocess.Popen(
            argv,
            env=self._spec.environment,
            cwd=self._deployment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_supervisor,  # noqa: PLW1509  this process has one thread
        )
        child.returncode = 0  # reaped by _reap, with the orphans, not by Popen
        return child.pid

    def _serve(self, output: int) -> None:
        """Copy the output to the log until the server has ended and none of its processes is left."""
        self._selector.register(output, selectors.EVENT_READ)
        open_output = True
        while self._status is None:
            self._pass_on_stop()
            self._selector.select(AGAIN_S if self._unwritten and self._stop_at is None else self._time_left())
            self._reap()
            if self._unwritten:
                self._write_down()
            if open_output and not self._copy(output):
                self._selector.unregister(output)
                open_output = False
            if self._time_left() == 0:
                kill_marked(server_mark(self._deployment))
        kill_marked(server_mark(self._deployment))
        self._end_gateway()
        self._reap()
        if open_output:
            self._copy(output)
            self._selector.unregister(output)
        os.close(output)

    def _copy(self, output: int) -> bool:
        """Whether the output may still say something."""
        while True:
            try:
                data = os.read(output, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            # On a full disk the line is lost; blocking the server would be worse.
            with contextlib.suppress(OSError):
                self._log.write(data)

    def _reap(self) -> None:
        """Collect the server and the orphans that became children of this subreaper."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                # Of the two that serve together, the first that ends says why.
                if ended[0] in (self._server, self._gateway) and self._status is None:
                    self._status = ended[1]

    def _end_gateway(self) -> None:
        """nginx writes its title over its environment, marks and all; but its workers are of its process group."""
        if self._gateway is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._gateway, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-self._gateway, 0)

    def _exit_code(self) -> int:
        code = os.waitstatus_to_exitcode(self._status or 0)
        return code if code >= 0 else 128 - code

    def _again(self) -> bool:
        """Whatever the code: vLLM 0.19.1's server ends with 0, five seconds after its engine was killed."""
        if self._stop_at is not None:
            return False
        return self._spec.restarts is None or self._restarts < self._spec.restarts

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._stop_at is None and (left := until - time.monotonic()) > 0:
            self._selector.select(left)
            self._reap()

    def _on_stop(self, *_: object) -> None:
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._spec.grace_s

    def _pass_on_stop(self) -> None:
        """SIGTERM to the server alone, as docker does: it ends its workers itself, in its own order."""
        if self._stop_at is not None and not self._told and self._server is not None:
            self._told = True
            os.kill(self._server, signal.SIGTERM)  # not reaped yet, so the number is still its own

    def _time_left(self) -> float | None:
        return None if self._stop_at is None else max(0.0, self._stop_at - time.monotonic())

    def _write(
        self, state: str, *, server: int | None = None, exit_code: int | None = None, oom_killed: bool = False
    ) -> None:
        now = ServerState.model_validate(
            {
                "supervisor": self._me,
                "server": identity_of(server) if server else None,
                "gateway": identity_of(self._gateway) if server and self._gateway else None,
                "launch_id": self._spec.launch_id,
                "plan_hash": self._spec.plan_hash,
                "state": state,
                "exit_code": exit_code,
                "oom_killed": oom_killed,
                "restart_count": self._restarts,
            }
        )
        self._unwritten = now.model_dump_json(indent=1) + "\n"
        self._write_down()

    def _write_down(self) -> None:
        try:
            write_atomically(self._deployment / "process.json", self._unwritten)
            self._unwritten = ""
        except EnvironmentUnfitError:
            # Of the first start somebody has to know; later a full disk must not end a server.
            if not self._restarts:
                raise


def main() -> None:
    """Fork away from whoever called, set the guard, supervise."""
    release, lock = Path(sys.argv[1]), int(sys.argv[2])
    if os.fork():
        os._exit(0)
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    fcntl.fcntl(lock, fcntl.F_SETFD, fcntl.FD_CLOEXEC)  # it came from the caller open across exec
    alive = _set_guard(release.parent.parent)
    try:
        Supervisor(release).run()
    except (OSError, DeployError) as error:
        _tell(f"{error}\n".encode())
        raise
    finally:
        os.close(alive)  # the guard ends when the last copy of this end is closed, however that comes about


def _set_guard(deployment: Path) -> int:
    """Fork a process that outlives this one by as long as it takes to kill what is left of the server."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(read_end)
        return write_end
    os.close(write_end)
    _close_stdout()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.read(read_end, 1)
    kill_marked(server_mark(deployment))
    os._exit(0)


def _tell(message: bytes) -> None:
    """Say it to `start`, if that still lives, and only once."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, message)
    _close_stdout()


def _close_stdout() -> None:
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


def _oom_kills() -> int:
    """Processes that the kernel killed for memory since boot (/proc/vmstat, counted since Linux 4.13)."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
