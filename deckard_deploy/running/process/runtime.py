"""The process runtime: vLLM as plain processes under our supervisor, for machines without docker.

The caller takes process.lock before the supervisor exists. The supervisor and its guard inherit it, and it is
free when the last of them is gone. A process that gets the lock therefore knows that nothing of the
deployment runs, even after a command or a supervisor was killed.
"""

import contextlib
import fcntl
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError, StartFailedError
from deckard_deploy.planning.gateway import SOCKET
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.running.process import isolation
from deckard_deploy.running.process.bounded_log import LogReader
from deckard_deploy.running.process.supervision import (
    GATEWAY_LOG,
    GATEWAY_TRIES,
    KEEP_ENVIRON,
    SERVER_LOG,
    SPEC,
    ServerSpec,
    ServerState,
    kill_tagged,
    restart_limit,
    server_tag,
    supervisor_tag,
    user_variable,
)
from deckard_deploy.running.releases import GATEWAY, Release
from deckard_deploy.running.runtime import (
    MISSING,
    DiskNeed,
    Instance,
    Observation,
    PythonCommand,
    State,
    VllmFiles,
)
from deckard_deploy.system.commands import Say, last_output_line, run
from deckard_deploy.system.files import read_regular, translating_write_errors, write_atomically
from deckard_deploy.system.ports import require_free
from deckard_deploy.system.processes import (
    ProcessIdentity,
    is_alive,
    processes_with_variable,
    send_signal,
    wait_gone,
)
from deckard_deploy.system.text import LineSplitter
from deckard_deploy.system.unknown import Unknown

FORWARDER = Path(__file__).with_name("forward.py")
_PYTHON_S = 600.0  # a busy machine may need minutes to import vLLM
LOG_BYTES = 16 << 20  # of the log, and again of the one before it
_SETTLE_S = 20  # a supervisor with the lock writes its state as soon as its Python has started
_POLL_S = 0.02
_TAIL_BYTES = 1 << 20
_CONNECTED = "03"  # include/uapi/linux/net.h, SS_CONNECTED
# In the engine's place where there is none: the supervisor then keeps nginx as it does in front of an engine.
_IDLE = ("sleep", "infinity")


class ProcessRuntime:
    """The server of one deployment as processes."""

    kind = "process"
    endpoint = None

    def __init__(
        self,
        deployment: DeploymentDir,
        *,
        program: Callable[[LaunchPlan], Path],
        environment: Mapping[str, str],
        say: Say,
    ) -> None:
        """program: returns the `vllm` of a plan's engine. environment: the caller's own.

        Of the caller's environment, the server sees PATH, HOME and LANG only.
        """
        self._deployment = deployment
        self._program = program
        self._environment = {
            name: environment[name] for name in ("PATH", "HOME", "LANG") if name in environment
        }
        self._say = say
        self._lines = LineSplitter()
        self._reader: LogReader | None = None

    def refuse_foreign(self) -> None:
        """Do nothing: processes are found by their deployment's folder."""

    def start(self, release: Release) -> Instance:
        """Start the release's recorded launch under a new supervisor.

        Raises EnvironmentUnfitError (the port is used, something of the deployment still runs),
        StartFailedError (the program cannot be run), IntegrityError (the release is damaged).
        """
        spec = self._spec(release)
        with self._nothing_running() as lock:
            plan = release.plan
            require_free(plan.address, plan.port)
            self._clear_state()
            write_atomically(release.folder / SPEC, spec.model_dump_json(indent=1) + "\n")
            self._say(f"$ {' '.join(spec.argv[:3])} …")
            self._spawn(release, lock)
        state = self._state()
        if state is None:
            raise StartFailedError(
                "the supervisor left no state", hint=f"see {release.folder / 'supervisor.log'}"
            )
        return Instance(str(state.supervisor), state.launch_id)

    def stop(self) -> None:
        """End the server, its workers and its supervisor: SIGTERM, the plan's grace, SIGKILL.

        The processes are found by their tags, not by the records, so that a damaged record does not matter.
        Raises EnvironmentUnfitError if a process does not die, which only the kernel can cause.
        """
        supervisors = [
            *processes_with_variable(supervisor_tag(self._deployment.folder)),
            *self._moved_supervisors(),
        ]
        for process in supervisors:
            send_signal(process, signal.SIGTERM)
        deadline = time.monotonic() + self._grace() + 10
        for process in supervisors:
            if not wait_gone(process, max(0.0, deadline - time.monotonic())):
                send_signal(process, signal.SIGKILL)  # its guard then kills the server
        kill_tagged(supervisor_tag(self._deployment.folder))
        left = kill_tagged(server_tag(self._deployment.folder))
        if left:
            raise EnvironmentUnfitError(
                f"process {left[0].pid} of deployment {self._deployment.name} does not die",
                hint=f"see what it waits for: cat /proc/{left[0].pid}/stack",
            )
        if self._deployment.folder.is_dir():
            with self._nothing_running():
                self._clear_state()

    def connections(self) -> int:
        """Return the number of connections that the server has accepted and not closed.

        nginx keeps none, so each is a request, or an answer that is still being read.
        """
        accepted = _accepted_on_sockets(SOCKET)
        if not accepted:
            return 0
        held: set[str] = set()
        for process in processes_with_variable(server_tag(self._deployment.folder)):
            held |= accepted & _sockets_of(process)
        return len(held)

    def observe(self) -> Observation:
        """Return the state that the supervisor wrote, if it still lives. Raises EnvironmentUnfitError."""
        state = self._settled()
        if state is None:
            return MISSING
        killed = not is_alive(state.supervisor) and state.state != "exited"
        return Observation(
            state="exited" if killed else state.state,
            # 128 + SIGKILL: only that ends a supervisor before it writes its end.
            exit_code=137 if killed else state.exit_code,
            oom_killed=state.oom_killed,
            restart_count=state.restart_count,
            instance_id=str(state.supervisor),
            plan_hash=state.plan_hash,
            launch_id=state.launch_id,
            gateway=None if killed else _gateway_state(state),
            gateway_exit_code=state.gateway_exit_code,
        )

    def start_gateway(self, release: Release) -> None:
        """Do nothing: the supervisor starts a gateway that has ended again, within seconds."""

    def drain(self) -> None:
        """Do nothing: the supervisor would start nginx again."""

    def poll_lines(self, *, last: int | None = None) -> list[str]:
        """Return the new lines of the log of the running or last server."""
        if self._reader is None:
            state = self._state()
            if state is None:
                return []
            self._reader = LogReader(self._log_of(state))
        lines = self._lines.feed(self._reader.read())
        if last is None:
            return lines
        return lines[max(0, len(lines) - last) :]

    def tail(self, count: int) -> list[str]:
        """Return the last lines of the log of the running or last server, at most 1 MiB of each file."""
        return self._tail_of(SERVER_LOG, count)

    def tail_gateway(self, count: int) -> list[str]:
        """Return the last lines of the log of the running or last gateway."""
        return self._tail_of(GATEWAY_LOG, count)

    def _tail_of(self, name: str, count: int) -> list[str]:
        state = self._state()
        if state is None:
            return []
        if count <= 0:
            return []
        splitter = LineSplitter()
        lines: list[str] = []
        log = self._log_of(state).with_name(name)
        for path in (log.with_name(f"{name}.1"), log):
            lines += splitter.feed(_last_bytes(path))
        return lines[-count:]

    def reload(self) -> None:
        """Make the gateway read its files again. nginx completes old connections before it ends them."""
        state = self._settled()
        if state and state.gateway:
            send_signal(state.gateway, signal.SIGHUP)

    def require_supported(self) -> None:
        """Do nothing: plain processes need no container engine."""

    def ensure_engine(self, plan: LaunchPlan, say: Say) -> None:  # noqa: ARG002  the protocol's
        """Install the plan's environment unless it is here, as `program` does."""
        self._program(plan)

    def image_digests(self, image: str) -> list[str]:  # noqa: ARG002  the protocol's
        """Return nothing: a process has no image."""
        return []

    def missing_image(self, plan: LaunchPlan) -> DiskNeed | Unknown | None:  # noqa: ARG002  the protocol's
        """Return None: a process has no image."""
        return None

    def vllm_files(self, plan: LaunchPlan) -> VllmFiles:
        """Return the vllm package of the plan's environment."""
        (package,) = self._program(plan).parents[1].glob("lib/python3*/site-packages/vllm")
        return VllmFiles(package=PurePosixPath(package))

    def python(self, plan: LaunchPlan) -> PythonCommand:
        """Return the Python of the plan's environment, with the variables that the server has."""
        return PythonCommand((str(self._program(plan).with_name("python")),), plan.environment)

    def run_python(self, plan: LaunchPlan, argv: tuple[str, ...]) -> str:
        """Run the Python of the plan's environment: what it would import is what the server imported."""
        command = self.python(plan)
        environment = {"PATH": self._environment.get("PATH", ""), **command.environment}
        # Not for `--verbose`: the argument is a whole script.
        done = run((*command.argv, *argv), environment=environment, say=lambda _: None, timeout_s=_PYTHON_S)
        return done.stdout or done.stderr

    def close(self) -> None:
        """Close the log; the server continues to run."""
        if self._reader:
            self._reader.close()
        self._reader, self._lines = None, LineSplitter()

    def _spec(self, release: Release) -> ServerSpec:
        launch = release.recorded_launch()
        plan = release.plan
        name, _, value = server_tag(self._deployment.folder).partition("=")
        if plan.role == "front":
            return ServerSpec(
                argv=_IDLE,
                environment={**self._environment, **KEEP_ENVIRON, name: value},
                launch_id=launch.launch_id,
                plan_hash=release.plan_hash,
                restarts=None,
                grace_s=plan.container.stop_grace_period_s,
                log_bytes=LOG_BYTES,
                gateway=_gateway_command(release, plan),
            )
        program = self._program(plan)
        own_network = isolation.obstacle() is None
        arguments = plan.launched(launch.launch_id).arguments
        front = _gateway_command(release, plan)
        if own_network and not front:
            arguments = _on_socket(arguments, plan)
            front = _forward_command(plan)
        return ServerSpec(
            argv=(str(program), *plan.entrypoint[1:], *arguments),
            environment={
                **self._environment,
                **user_variable(),
                **(isolation.VARIABLES if own_network else {}),
                **plan.environment,
                **KEEP_ENVIRON,
                name: value,
            },
            launch_id=launch.launch_id,
            plan_hash=release.plan_hash,
            restarts=restart_limit(plan.container.restart),
            grace_s=plan.container.stop_grace_period_s,
            log_bytes=LOG_BYTES,
            gateway=front,
            socket=SOCKET if front else None,
            own_network=own_network,
        )

    def _spawn(self, release: Release, lock: int) -> None:
        """Start the supervisor. Raises StartFailedError with its message."""
        log = release.folder / "supervisor.log"
        argv = [
            sys.executable,
            "-m",
            "deckard_deploy.running.process.supervisor",
            str(release.folder),
            str(lock),
        ]
        name, _, value = supervisor_tag(self._deployment.folder).partition("=")
        with translating_write_errors(log), log.open("wb") as errors:
            launcher = subprocess.Popen(
                argv,
                env={**self._environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), name: value},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                pass_fds=(lock,),
            )
        with launcher:
            output = launcher.stdout.read() if launcher.stdout else b""
        message = output.decode(errors="replace")
        if message != "started\n":
            message = message or log.read_text(errors="replace")
            raise StartFailedError(
                f"the server could not be started: {last_output_line(message)}", hint=f"see {log}"
            )

    @contextlib.contextmanager
    def _nothing_running(self) -> Iterator[int]:
        """Hold process.lock: nothing of the deployment runs, and only the holder can start it."""
        with translating_write_errors(self._deployment.process_lock):
            lock = os.open(
                self._deployment.process_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        try:
            deadline = time.monotonic() + _SETTLE_S
            while not _try_lock(lock):
                if time.monotonic() > deadline:
                    raise EnvironmentUnfitError(
                        f"a server of deployment {self._deployment.name} is still running",
                        hint="deckard-deploy down",
                    )
                time.sleep(_POLL_S)
            yield lock
        finally:
            os.close(lock)

    def _settled(self) -> ServerState | None:
        """Return the state once its supervisor lives or the lock is free. Raises EnvironmentUnfitError."""
        try:
            lock = os.open(self._deployment.process_lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            deadline = time.monotonic() + _SETTLE_S
            while True:
                state = self._state()
                if (state and is_alive(state.supervisor)) or _try_lock(lock):
                    return self._state()
                if time.monotonic() > deadline:
                    raise EnvironmentUnfitError(
                        f"something holds {self._deployment.process_lock} and says nothing of itself",
                        hint=f"see who it is: fuser -v {self._deployment.process_lock}",
                    )
                time.sleep(_POLL_S)
        finally:
            os.close(lock)

    def _state(self) -> ServerState | None:
        try:
            return ServerState.model_validate_json(read_regular(self._deployment.process_state))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise IntegrityError(
                f"{self._deployment.process_state} is damaged", hint="stop what may run: deckard-deploy down"
            ) from error

    def _moved_supervisors(self) -> list[ProcessIdentity]:
        """Return the supervisor of a state directory that was moved while it ran; its tag names the old path.

        It is the recorded one, and holds the lock. In a copy of the directory, the recorded one does not hold
        the lock.
        """
        try:
            lock = os.open(self._deployment.process_lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return []
        try:
            state = self._state()
            if state and not _try_lock(lock):
                return [state.supervisor]
        except (IntegrityError, OSError):
            return []
        finally:
            os.close(lock)
        return []

    def _clear_state(self) -> None:
        self.close()
        self._deployment.process_state.unlink(missing_ok=True)
        (self._deployment.folder / SOCKET).unlink(missing_ok=True)

    def _grace(self) -> float:
        graces = []
        for spec in self._deployment.releases.glob(f"*/{SPEC}"):
            grace_s = _grace_of(spec)
            if grace_s is not None:
                graces.append(grace_s)
        return max(graces, default=30.0)

    def _log_of(self, state: ServerState) -> Path:
        return self._deployment.releases / state.plan_hash / SERVER_LOG


def _accepted_on_sockets(name: str) -> set[str]:
    """Return the inodes of accepted connections to all sockets of that name (/proc/net/unix, fs/seq: unix_seq_show)."""
    found = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == len(("Num", "RefCount", "Protocol", "Flags", "Type", "St", "Inode", "Path")):
            state, inode, path = fields[5:]
            if state == _CONNECTED and path.rpartition("/")[2] == name:
                found.add(inode)
    return found


def _sockets_of(process: ProcessIdentity) -> set[str]:
    """Return the inodes of the sockets that a process holds; none of a process that has ended."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed since it was listed
                inodes.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    return inodes


def _gateway_command(release: Release, plan: LaunchPlan) -> tuple[str, ...]:
    """Return the command line of nginx; its prefix is the deployment's folder."""
    if plan.gateway is None or plan.gateway.program is None:
        return ()
    command = [plan.gateway.program, "-p", str(release.folder.parent.parent)]
    command += ["-e", "stderr", "-c", str(release.folder / GATEWAY)]
    if os.geteuid() == 0:
        # By default nginx, started by root, runs its workers as another user, who may not open the engine's
        # socket.
        command += ["-g", f"user {pwd.getpwuid(0).pw_name};"]
    return tuple(command)


def _gateway_state(state: ServerState) -> State | None:
    """Return the gateway's state, None if the server has none. Its supervisor retries without end."""
    if state.gateway and is_alive(state.gateway):
        return "running"
    if state.gateway_restarts >= GATEWAY_TRIES:
        return "exited"
    if state.gateway or state.gateway_restarts:
        return "restarting"
    return None


def _on_socket(arguments: tuple[str, ...], plan: LaunchPlan) -> tuple[str, ...]:
    """Return the arguments of `vllm serve` with the socket in place of the address."""
    address = ("--host", plan.address, "--port", str(plan.container_port))
    at = arguments.index("--host")
    if arguments[at : at + len(address)] != address:
        raise IntegrityError(f"the plan of {plan.deployment} does not listen on {plan.address}:{plan.port}")
    return (*arguments[:at], "--uds", SOCKET, *arguments[at + len(address) :])


def _forward_command(plan: LaunchPlan) -> tuple[str, ...]:
    """Return the command line that passes connections on. It needs nothing but this one file."""
    return (sys.executable, "-I", str(FORWARDER), SOCKET, plan.address, str(plan.port))


def _grace_of(spec: Path) -> float | None:
    """Return the grace period of a stored spec in seconds, None if the file is missing or damaged."""
    try:
        return ServerSpec.model_validate_json(read_regular(spec)).grace_s
    except (ValidationError, IntegrityError, FileNotFoundError):
        return None


def _last_bytes(path: Path) -> bytes:
    """Return the last _TAIL_BYTES of a file, nothing if it does not exist."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read()
    except FileNotFoundError:
        return b""


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
