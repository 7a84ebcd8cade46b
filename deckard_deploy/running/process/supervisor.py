"""The supervisor of a plain server process: `python -m deckard_deploy.running.process.supervisor`.

It outlives the command that started it, keeps the server's log bounded, restarts the server as often as the
plan allows, writes the server's state, and ends every process of the server before it ends itself. Arguments:
the release folder and the descriptor of the held process.lock. Prints `started` or the error, then closes
stdout.

    up ──> launcher ──fork──> supervisor ──fork──> guard    holds the lock; kills leftovers of the supervisor
                                         ├─Popen─> server   own session; dies with the supervisor (PDEATHSIG)
                                         └─Popen─> gateway  nginx; started again on its own when it ends
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
from deckard_deploy.running.process.isolation import enter_own_network
from deckard_deploy.running.process.supervision import (
    GATEWAY_LOG,
    SERVER_LOG,
    SERVER_VARIABLE,
    SPEC,
    ServerSpec,
    ServerState,
    kill_tagged,
    server_tag,
)
from deckard_deploy.system.files import write_atomically
from deckard_deploy.system.processes import identity_of

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # include/uapi/linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)
_STARTED = b"started\n"
RETRY_S = 2.0  # between two attempts to write on a full disk
GATEWAY_PAUSE_S = 10.0  # the longest pause before a gateway is started again
GATEWAY_SETTLED_S = 10.0  # a gateway that has run so long does not end for its configuration


class Supervisor:
    """The supervisor of one ServerSpec, until its server has ended or SIGTERM arrives. Single-threaded."""

    def __init__(self, release: Path) -> None:
        self._deployment = release.parent.parent
        self._spec = ServerSpec.model_validate_json((release / SPEC).read_text())
        self._log = BoundedLog(release / SERVER_LOG, self._spec.log_bytes)
        self._gateway_log = BoundedLog(release / GATEWAY_LOG, self._spec.log_bytes)
        self._me = identity_of(os.getpid())
        self._restarts = 0
        self._server: int | None = None
        self._gateway: int | None = None
        self._gateway_since = 0.0  # monotonic: its last start or end
        self._gateway_restarts = 0  # since it has last run for a while
        self._gateway_exit_code: int | None = None
        self._status: int | None = None
        self._stop_at: float | None = None  # monotonic; set by SIGTERM
        self._stop_sent = False
        self._unwritten = ""  # the content of process.json that a full disk has refused
        self._selector = selectors.DefaultSelector()
        self._wake, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # guard: F57
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)

    def run(self) -> None:
        """Start the server, and restart it after failures, until it has ended finally."""
        while True:
            killed_before = _oom_kills()
            self._start()
            _report(_STARTED)
            self._serve()
            code = self._exit_code()
            oom_killed = code != 0 and _oom_kills() > killed_before
            if not self._may_restart():
                self._write("exited", exit_code=code, oom_killed=oom_killed)
                return
            self._restarts += 1
            self._write("restarting", exit_code=code, oom_killed=oom_killed)
            self._pause(min(60.0, 0.1 * 2**self._restarts))  # as docker: restartmanager.go
            if self._stop_at is not None:
                self._write("exited", exit_code=code, oom_killed=oom_killed)
                return

    def _start(self) -> None:
        self._server = self._gateway = self._status = self._gateway_exit_code = None
        self._gateway_restarts = 0
        if self._spec.socket:  # a killed server leaves it, and the next could not bind
            (self._deployment / self._spec.socket).unlink(missing_ok=True)
        self._server = self._spawn_logged(self._spec.argv, self._log, signal.SIGKILL)
        self._start_gateway()
        self._write("running", server=self._server)

    def _start_gateway(self) -> None:
        if self._spec.gateway:  # nginx ends its workers on SIGTERM, but not on SIGKILL
            self._gateway = self._spawn_logged(self._spec.gateway, self._gateway_log, signal.SIGTERM)
            self._gateway_since = time.monotonic()

    def _restart_gateway(self) -> None:
        """Start a gateway that has ended again, after its pause. The server is not affected."""
        if self._gateway_wait() != 0:
            return
        try:
            self._start_gateway()
        except OSError:  # its program is being replaced, or is gone
            self._gateway_restarts += 1
            self._gateway_since = time.monotonic()
        self._write("running", server=self._server)

    def _gateway_wait(self) -> float | None:
        """Return the seconds until the gateway has to be started again; None: it need not be."""
        if not self._spec.gateway or self._gateway is not None or self._stop_at is not None:
            return None
        pause = min(GATEWAY_PAUSE_S, 0.1 * 2**self._gateway_restarts)
        due: float = self._gateway_since + pause
        return max(0.0, due - time.monotonic())

    def _spawn_logged(self, argv: tuple[str, ...], log: BoundedLog, end: signal.Signals) -> int:
        """Start a child as `_spawn` does, and copy its output to a log from now on."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            pid = self._spawn(argv, write_end, end)
        finally:
            os.close(write_end)
        os.set_blocking(read_end, False)
        self._selector.register(read_end, selectors.EVENT_READ, log)
        return pid

    def _spawn(self, argv: tuple[str, ...], output: int, end: signal.Signals) -> int:
        """Start a child that receives the signal `end` when this process dies. Return its pid.

        The tag and the network of its own belong to the server.
        """
        me = os.getpid()
        is_server = argv == self._spec.argv
        environment = dict(self._spec.environment)
        if not is_server:
            environment.pop(SERVER_VARIABLE, None)

        def prepare() -> None:
            if is_server and self._spec.own_network:
                enter_own_network()
            _LIBC.prctl(_PR_SET_PDEATHSIG, end, 0, 0, 0)
            if os.getppid() != me:  # the supervisor died before the line above
                os._exit(1)

        child = subprocess.Popen(
            argv,
            env=environment,
            cwd=self._deployment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509  this process has one thread
        )
        child.returncode = 0  # _reap collects it together with the orphans, not Popen
        return child.pid

    def _serve(self) -> None:
        """Copy the outputs to the logs until all processes of the server have ended."""
        while self._status is None:
            self._forward_stop()
            self._selector.select(self._wait_s())
            self._reap()
            if self._status is None:
                self._restart_gateway()
            if self._unwritten:
                self._write_state_file()
            self._copy_outputs()
            if self._time_left() == 0:
                kill_tagged(server_tag(self._deployment))
        kill_tagged(server_tag(self._deployment))
        if self._gateway is not None:
            _end_group(self._gateway)
        self._reap()
        self._copy_outputs(close=True)

    def _wait_s(self) -> float | None:
        """Return the seconds after which something has to be done without an event."""
        waits = [self._time_left(), self._gateway_wait()]
        if self._unwritten and self._stop_at is None:
            waits.append(RETRY_S)
        return min((wait for wait in waits if wait is not None), default=None)

    def _copy_outputs(self, *, close: bool = False) -> None:
        """Copy the available output of server and gateway. Close an output at its end; with `close` all of them."""
        for key in list(self._selector.get_map().values()):
            if key.data is not None and (not self._copy(key.fd, key.data) or close):
                self._selector.unregister(key.fd)
                os.close(key.fd)

    @staticmethod
    def _copy(output: int, log: BoundedLog) -> bool:
        """Copy the available output to the log. Return False at its end."""
        while True:
            try:
                data = os.read(output, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            # On a full disk the output is lost, because the server must not be blocked.
            with contextlib.suppress(OSError):
                log.write(data)

    def _reap(self) -> None:
        """Collect the server and its orphans, which become children of this subreaper."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while ended := _ended_child(-1, os.WNOHANG):
            pid, status = ended
            if pid == self._server:
                self._status = status
            elif pid == self._gateway and self._status is None:  # guard: F62
                self._gateway_ended(pid, status)

    def _gateway_ended(self, pid: int, status: int) -> None:
        """Record the end of the gateway, and end its workers, which still hold the port."""
        _end_group(pid)
        now = time.monotonic()
        if now - self._gateway_since >= GATEWAY_SETTLED_S:
            self._gateway_restarts = 0
        self._gateway_restarts += 1
        self._gateway, self._gateway_since = None, now
        self._gateway_exit_code = _code(status)
        if self._server is not None and self._stop_at is None:
            self._write("running", server=self._server)

    def _exit_code(self) -> int:
        return _code(self._status or 0)

    def _may_restart(self) -> bool:
        """Return True unless a stop is requested or the maximum of restarts is reached.

        The exit code does not matter: vLLM 0.19.1's server ends with 0, five seconds after its engine was
        killed.
        """
        if self._stop_at is not None:
            return False
        return self._spec.restarts is None or self._restarts < self._spec.restarts

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._stop_at is None:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._selector.select(left)
            self._reap()

    def _on_stop(self, *_: object) -> None:
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._spec.grace_s

    def _forward_stop(self) -> None:
        """Send SIGTERM to the server only, as docker does: the server ends its workers in its own order."""
        if self._stop_at is not None and not self._stop_sent and self._server is not None:
            self._stop_sent = True
            os.kill(self._server, signal.SIGTERM)  # it is not reaped yet, so the pid is still its own

    def _time_left(self) -> float | None:
        if self._stop_at is None:
            return None
        return max(0.0, self._stop_at - time.monotonic())

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
                "gateway_exit_code": self._gateway_exit_code,
                "gateway_restarts": self._gateway_restarts,
            }
        )
        self._unwritten = now.model_dump_json(indent=1) + "\n"
        self._write_state_file()

    def _write_state_file(self) -> None:
        try:
            write_atomically(self._deployment / "process.json", self._unwritten)
            self._unwritten = ""
        except EnvironmentUnfitError:
            # `start` needs the state of the first start. Later, a full disk must not end a server.
            if not self._restarts:
                raise


def main() -> None:
    """Fork away from the caller, start the guard, and supervise."""
    release, lock = Path(sys.argv[1]), int(sys.argv[2])
    if os.fork():
        os._exit(0)
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    fcntl.fcntl(lock, fcntl.F_SETFD, fcntl.FD_CLOEXEC)  # inherited from the caller across exec
    alive = _start_guard(release.parent.parent)
    try:
        Supervisor(release).run()
    except (OSError, DeployError) as error:
        _report(f"{error}\n".encode())
        raise
    finally:
        os.close(alive)  # the guard acts when the last copy of this end is closed, also by a kill


def _start_guard(deployment: Path) -> int:
    """Fork a process that kills the server after this one ends. Return the pipe that keeps it waiting."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(read_end)
        return write_end
    os.close(write_end)
    _close_stdout()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.read(read_end, 1)
    kill_tagged(server_tag(deployment))
    os._exit(0)


def _report(message: bytes) -> None:
    """Send a message to `start`, if that still lives, and close stdout; later messages are discarded."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, message)
    _close_stdout()


def _close_stdout() -> None:
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


def _ended_child(pid: int, options: int) -> tuple[int, int] | None:
    """Collect a child that has ended: return its pid and status, None if there is none. As waitpid(2)."""
    try:
        ended, status = os.waitpid(pid, options)
    except ChildProcessError:
        return None
    if not ended:
        return None
    return ended, status


def _end_group(leader: int) -> None:
    """Kill the gateway and its workers by their process group.

    nginx overwrites its environment, and with it the tag, by its process title.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    while _ended_child(-leader, 0):
        pass


def _code(status: int) -> int:
    """Return the exit code of a wait status: 128 + n after signal n."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return 128 - code
    return code


def _oom_kills() -> int:
    """Return the number of processes that the kernel killed for memory since boot.

    (/proc/vmstat, counted since Linux 4.13.)
    """
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
