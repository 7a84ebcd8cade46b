"""vLLM as plain processes of this host, under a supervisor of ours; for machines without docker.

The supervisor and all that belongs to it hold process.lock, from before they exist until the last of them is gone:
whoever gets the lock knows that nothing of the deployment runs, however the last command or supervisor was killed.
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
from pathlib import Path

from pydantic import ValidationError

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError, StartFailedError
from deckard_deploy.planning.gateway import SOCKET
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.running.process.bounded_log import LogReader
from deckard_deploy.running.process.supervision import (
    KEEP_ENVIRON,
    SERVER_LOG,
    SPEC,
    ServerSpec,
    ServerState,
    kill_marked,
    restarts_of,
    server_mark,
    supervisor_mark,
    user_name,
)
from deckard_deploy.running.releases import GATEWAY, Release
from deckard_deploy.running.runtime import MISSING, Instance, Observation
from deckard_deploy.system.commands import Say, last_output_line
from deckard_deploy.system.files import read_regular, write_atomically, writing
from deckard_deploy.system.ports import require_free
from deckard_deploy.system.processes import (
    ProcessIdentity,
    is_alive,
    processes_with_variable,
    send_signal,
    wait_gone,
)
from deckard_deploy.system.text import LineSplitter

LOG_BYTES = 16 << 20  # twice: the log and the one before it
_SETTLE_S = 20  # a supervisor that holds the lock writes its state within the time Python takes to start


class ProcessRuntime:
    """One deployment's server as processes. `program`: a plan -> the `vllm` of the engine's environment."""

    kind = "process"

    def __init__(
        self,
        deployment: DeploymentDir,
        *,
        program: Callable[[LaunchPlan], Path],
        environment: Mapping[str, str],
        say: Say,
    ) -> None:
        """`environment` is the caller's own; of it the server sees PATH, HOME and LANG alone."""
        self._deployment = deployment
        self._program = program
        self._environment = {
            name: environment[name] for name in ("PATH", "HOME", "LANG") if name in environment
        }
        self._say = say
        self._lines = LineSplitter()
        self._reader: LogReader | None = None

    def start(self, release: Release) -> Instance:
        """Start the release's recorded launch under a new supervisor.

        Raises EnvironmentUnfitError (the port is taken, something of the deployment still runs), StartFailedError (the
        program cannot be run), IntegrityError (the release is damaged).
        """
        spec = self._spec(release)
        with self._nothing_running() as lock:
            plan = release.plan()
            require_free(plan.address, plan.port)
            self._forget()
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

        They are found by their marks, not by what is written down, so a damaged record cannot save one.
        Raises EnvironmentUnfitError when a process does not die, which only the kernel can hold up.
        """
        supervisors = [
            *processes_with_variable(supervisor_mark(self._deployment.folder)),
            *self._of_another_path(),
        ]
        for process in supervisors:
            send_signal(process, signal.SIGTERM)
        deadline = time.monotonic() + self._grace() + 10
        for process in supervisors:
            if not wait_gone(process, max(0.0, deadline - time.monotonic())):
                send_signal(process, signal.SIGKILL)  # its guard takes the server with it
        kill_marked(supervisor_mark(self._deployment.folder))
        left = kill_marked(server_mark(self._deployment.folder))
        if left:
            raise EnvironmentUnfitError(
                f"process {left[0].pid} of deployment {self._deployment.name} does not die",
                hint=f"see what it waits for: cat /proc/{left[0].pid}/stack",
            )
        if self._deployment.folder.is_dir():
            with self._nothing_running():
                self._forget()

    def observe(self) -> Observation:
        """What the supervisor says, as far as it lives. Raises EnvironmentUnfitError."""
        state = self._settled()
        if state is None:
            return MISSING
        killed = not is_alive(state.supervisor) and state.state != "exited"
        return Observation(
            state="exited" if killed else state.state,
            # 128 + SIGKILL: nothing else ends a supervisor like that.
            exit_code=137 if killed else state.exit_code,
            oom_killed=state.oom_killed,
            restart_count=state.restart_count,
            instance_id=str(state.supervisor),
            plan_hash=state.plan_hash,
            launch_id=state.launch_id,
        )

    def poll_lines(self, *, last: int | None = None) -> list[str]:
        """New lines of the running or last server's log."""
        if self._reader is None:
            state = self._state()
            if state is None:
                return []
            self._reader = LogReader(self._log_of(state))
        lines = self._lines.feed(self._reader.read())
        return lines if last is None else lines[max(0, len(lines) - last) :]

    def tail(self, count: int) -> list[str]:
        """The last lines of the running or last server's log, of at most a MiB."""
        state = self._state()
        if state is None:
            return []
        splitter, lines = LineSplitter(), list[str]()
        log = self._log_of(state)
        for path in (log.with_name(f"{SERVER_LOG}.1"), log):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - (1 << 20)))
                lines += splitter.feed(file.read())
        return lines[-count:] if count > 0 else []

    def reload(self) -> None:
        """Have the gateway read its files again: nginx takes up new connections with them, and ends old ones well."""
        state = self._settled()
        if state and state.gateway:
            send_signal(state.gateway, signal.SIGHUP)

    def close(self) -> None:
        """Close the log; the server goes on."""
        if self._reader:
            self._reader.close()
        self._reader, self._lines = None, LineSplitter()

    def _spec(self, release: Release) -> ServerSpec:
        launch = release.recorded_launch()
        plan = release.plan()
        name, _, value = server_mark(self._deployment.folder).partition("=")
        restarts = restarts_of(plan.container.restart)
        program = self._program(plan)
        return ServerSpec(
            argv=(str(program), *plan.entrypoint[1:], *plan.launched(launch.launch_id).arguments),
            environment={**self._environment, **user_name(), **plan.environment, **KEEP_ENVIRON, name: value},
            launch_id=launch.launch_id,
            plan_hash=release.plan_hash,
            restarts=restarts,
            grace_s=plan.container.stop_grace_period_s,
            log_bytes=LOG_BYTES,
            gateway=_nginx(release, plan),
            socket=SOCKET if plan.gateway else None,
        )

    def _spawn(self, release: Release, lock: int) -> None:
        """Raises StartFailedError with what the supervisor said."""
        log = release.folder / "supervisor.log"
        argv = [
            sys.executable,
            "-m",
            "deckard_deploy.running.process.supervisor",
            str(release.folder),
            str(lock),
        ]
        name, _, value = supervisor_mark(self._deployment.folder).partition("=")
        with writing(log), log.open("wb") as errors:
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
            said = (launcher.stdout.read() if launcher.stdout else b"").decode(errors="replace")
        if said != "started\n":
            raise StartFailedError(
                f"the server could not be started: {last_output_line(said or log.read_text(errors='replace'))}",
                hint=f"see {log}",
            )

    @contextlib.contextmanager
    def _nothing_running(self) -> Iterator[int]:
        """Hold process.lock: nothing of the deployment runs, and nothing but the holder will start it."""
        with writing(self._deployment.process_lock):
            lock = os.open(
                self._deployment.process_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        try:
            deadline = time.monotonic() + _SETTLE_S
            while not _locked(lock):
                if time.monotonic() > deadline:
                    raise EnvironmentUnfitError(
                        f"a server of deployment {self._deployment.name} is still running",
                        hint="deckard-deploy down",
                    )
                time.sleep(0.02)
            yield lock
        finally:
            os.close(lock)

    def _settled(self) -> ServerState | None:
        """The state, once it is the lock holder's own or nobody holds the lock. Raises EnvironmentUnfitError."""
        try:
            lock = os.open(self._deployment.process_lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            deadline = time.monotonic() + _SETTLE_S
            while True:
                state = self._state()
                if (state and is_alive(state.supervisor)) or _locked(lock):
                    return self._state()
                if time.monotonic() > deadline:
                    raise EnvironmentUnfitError(
                        f"something holds {self._deployment.process_lock} and says nothing of itself",
                        hint=f"see who it is: fuser -v {self._deployment.process_lock}",
                    )
                time.sleep(0.02)
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

    def _of_another_path(self) -> list[ProcessIdentity]:
        """The supervisor of a state directory that was moved while it ran: its marks name the old path.

        It is the recorded one, and holds the lock; the one in a copy of the directory holds no lock there.
        """
        with contextlib.suppress(IntegrityError, OSError):
            lock = os.open(self._deployment.process_lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                state = self._state()
                return [state.supervisor] if state and not _locked(lock) else []
            finally:
                os.close(lock)
        return []

    def _forget(self) -> None:
        self.close()
        self._deployment.process_state.unlink(missing_ok=True)
        (self._deployment.folder / SOCKET).unlink(missing_ok=True)

    def _grace(self) -> float:
        graces = []
        for spec in self._deployment.releases.glob(f"*/{SPEC}"):
            with contextlib.suppress(ValidationError, IntegrityError, FileNotFoundError):
                graces.append(ServerSpec.model_validate_json(read_regular(spec)).grace_s)
        return max(graces, default=30.0)

    def _log_of(self, state: ServerState) -> Path:
        return self._deployment.releases / state.plan_hash / SERVER_LOG


def _nginx(release: Release, plan: LaunchPlan) -> tuple[str, ...]:
    """The gateway's command line; its folder is the deployment's."""
    if plan.gateway is None or plan.gateway.program is None:
        return ()
    # Started by root, it would give its workers to another user, who may not come to the engine's socket.
    user = ("-g", f"user {pwd.getpwuid(0).pw_name};") if os.geteuid() == 0 else ()
    folder = release.folder.parent.parent
    return (
        plan.gateway.program,
        "-p",
        str(folder),
        "-e",
        "stderr",
        "-c",
        str(release.folder / GATEWAY),
        *user,
    )


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
