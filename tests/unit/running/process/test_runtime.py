import json
import os
import pwd
import shutil
import signal
import socket
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError, StartFailedError
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.process import isolation
from deckard_deploy.running.process.supervision import ServerState
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Observation
from deckard_deploy.system.processes import is_alive, send_signal, wait_gone
from tests.support.fake_deployment import FakeDeployment
from tests.support.ports import free_port
from tests.support.waiting import eventually


def state(fake: FakeDeployment) -> ServerState:
    return ServerState.model_validate_json(fake.deployment.process_state.read_text())


def remaining_processes(fake: FakeDeployment) -> list[object]:
    return [*fake.processes(), *fake.supervisors()]


def wait_until_exited(fake: FakeDeployment) -> Observation:
    def look() -> Observation | None:
        seen = fake.runtime().observe()
        return seen if seen.state == "exited" else None

    found = eventually(look)
    assert found
    return found


def start_and_wait(fake: FakeDeployment) -> Release:
    release = fake.started(fake.plan())
    eventually(fake.names)
    return release


def test_server_outlives_its_starter(fake):
    release = start_and_wait(fake)
    assert fake.names() == ["t", "deckard-launch-1"]
    seen = fake.runtime().observe()
    assert (seen.state, seen.plan_hash, seen.launch_id) == ("running", release.plan_hash, "deckard-launch-1")
    assert (seen.exit_code, seen.restart_count, seen.oom_killed) == (None, 0, False)
    supervisor = state(fake).supervisor
    assert os.getpgid(supervisor.pid) != os.getpgrp()


def test_server_environment_has_no_secret(fake):
    fake.environment["LC_ALL"] = "C"
    fake.started(fake.plan(VLLM_X="1"))
    eventually(fake.names)
    seen = {line.split()[1] for line in fake.runtime().tail(100) if line.startswith("variable ")}
    allowed = {
        "PATH",
        "HOME",
        "LANG",
        "VLLM_X",
        "DECKARD_DEPLOYMENT",
        "SPT_NOENV",
        "LC_CTYPE",
        *isolation.VARIABLES,
    }
    assert {"PATH", "HOME", "VLLM_X"} <= seen <= allowed
    assert "canary" not in Path(f"/proc/{state(fake).supervisor.pid}/environ").read_text()


def test_user_without_name_gets_one(fake, monkeypatch):
    """PyTorch's import failed with `getpwuid(): uid not found` for a user without a name."""

    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    start_and_wait(fake)
    assert "variable USER" in fake.runtime().tail(100)


@pytest.mark.parametrize("mode", ["serve", "stubborn"])
def test_stop_leaves_no_process_and_no_state(fake, mode):
    fake.started(fake.plan(grace=1, FAKE_MODE=mode))
    eventually(fake.names)
    assert len(fake.processes()) == 2
    runtime = fake.runtime()
    runtime.stop()
    assert remaining_processes(fake) == []
    assert runtime.observe().state == "missing"
    assert fake.names() is None
    runtime.stop()  # idempotent


def test_stop_ends_server_by_sigterm_within_grace(fake):
    release = start_and_wait(fake)
    fake.runtime().stop()
    assert release.launch() is not None
    # The server's own handler ran: `serve` exits with 0 on SIGTERM, and SIGKILL would have left 137.
    assert "stubborn" not in (release.folder / "vllm.log").read_text()


def test_crash_is_reported_with_code_and_last_line(fake):
    fake.started(fake.plan(FAKE_MODE="crash"))
    seen = wait_until_exited(fake)
    assert (seen.exit_code, seen.restart_count) == (3, 0)
    assert fake.runtime().tail(1) == ["RuntimeError: it is made to fail"]
    assert eventually(lambda: remaining_processes(fake) == [])


@pytest.mark.parametrize(("policy", "restarts"), [("no", 0), ("on-failure:1", 1), ("on-failure:2", 2)])
def test_crash_loop_ends(fake, policy, restarts):
    fake.started(fake.plan(restart=policy, FAKE_MODE="crash"))
    seen = wait_until_exited(fake)
    assert (seen.restart_count, seen.exit_code) == (restarts, 3)
    assert fake.runtime().tail(99).count("RuntimeError: it is made to fail") == restarts + 1


@pytest.mark.parametrize(("policy", "restarts"), [("no", 0), ("on-failure:2", 2)])
def test_exit_with_code_0_is_a_crash(fake, policy, restarts):
    fake.started(fake.plan(restart=policy, FAKE_MODE="quit"))
    seen = wait_until_exited(fake)
    assert (seen.exit_code, seen.restart_count) == (0, restarts)


def test_restart_ends_old_workers(fake):
    fake.started(fake.plan(restart="on-failure:9", FAKE_MODE="late-crash"))
    eventually(lambda: fake.runtime().observe().restart_count >= 2)
    assert eventually(lambda: len(fake.processes()) == 2)
    fake.runtime().stop()
    assert remaining_processes(fake) == []


def test_stop_between_two_restarts(fake):
    fake.started(fake.plan(restart="on-failure:1000", FAKE_MODE="crash"))
    eventually(lambda: fake.runtime().observe().state == "restarting")
    fake.runtime().stop()
    assert remaining_processes(fake) == []
    assert fake.runtime().observe().state == "missing"


def test_sighup_ends_nothing(fake):
    start_and_wait(fake)
    before = fake.processes()
    for process in fake.supervisors():
        send_signal(process, signal.SIGHUP)
    fake.runtime().observe()
    assert not any(wait_gone(process, 0.3) for process in before)
    assert fake.names() is not None


def test_killed_supervisor_ends_everything(fake):
    start_and_wait(fake)
    send_signal(state(fake).supervisor, signal.SIGKILL)
    assert eventually(lambda: remaining_processes(fake) == [])
    seen = fake.runtime().observe()
    assert (seen.state, seen.exit_code) == ("exited", 137)


def test_stop_after_killed_supervisor_and_guard(fake):
    start_and_wait(fake)
    server, supervisor = state(fake).server, state(fake).supervisor
    # The guard first: it would kill the worker as soon as the supervisor is gone.
    for process in sorted(fake.supervisors(), key=lambda each: each == supervisor):
        send_signal(process, signal.SIGKILL)
    assert server
    # The server dies with its supervisor, its worker does not.
    assert eventually(lambda: not is_alive(server))
    assert len(fake.processes()) == 1
    fake.runtime().stop()
    assert remaining_processes(fake) == []


def test_killed_server_is_a_failure(fake):
    start_and_wait(fake)
    server = state(fake).server
    assert server
    send_signal(server, signal.SIGKILL)
    seen = wait_until_exited(fake)
    assert seen.exit_code == 137
    assert eventually(lambda: remaining_processes(fake) == [])


def test_server_is_restarted_on_full_disk(fake):
    fake.started(fake.plan(restart="on-failure:1"))
    eventually(fake.names)
    server = state(fake).server
    assert server
    fake.deployment.process_state.unlink()
    fake.deployment.process_state.mkdir()  # so that no file can replace it
    send_signal(server, signal.SIGKILL)
    eventually(lambda: fake.processes() and server not in fake.processes() and fake.names())
    fake.deployment.process_state.rmdir()
    eventually(fake.deployment.process_state.is_file)  # the supervisor writes it later
    assert (fake.runtime().observe().restart_count, state(fake).server in fake.processes()) == (1, True)
    fake.runtime().stop()
    assert remaining_processes(fake) == []


def test_stop_trusts_no_recorded_pid(fake):
    """A damaged or old record names a foreign process, here that of the test."""
    start_and_wait(fake)
    record = json.loads(fake.deployment.process_state.read_text())
    record["supervisor"]["pid"] = record["server"]["pid"] = os.getpid()
    fake.deployment.process_state.write_text(json.dumps(record))
    fake.runtime().stop()
    assert remaining_processes(fake) == []


def test_stop_works_with_damaged_record(fake):
    start_and_wait(fake)
    fake.deployment.process_state.write_text("{")
    with pytest.raises(IntegrityError, match=r"process\.json is damaged"):
        fake.runtime().observe()
    fake.runtime().stop()
    assert remaining_processes(fake) == []
    assert fake.runtime().observe().state == "missing"


def test_stop_after_moved_state_directory(fake):
    start_and_wait(fake)
    moved = StateDir(fake.state.root.rename(fake.state.root.with_name("moved"))).deployment("box")
    runtime = fake.runtime(moved)
    assert runtime.observe().state == "running"
    runtime.stop()
    assert remaining_processes(fake) == []
    assert runtime.observe().state == "missing"


def test_stop_in_copied_state_directory_ends_nothing(fake):
    start_and_wait(fake)
    copied = shutil.copytree(
        fake.state.root, fake.state.root.with_name("copy"), ignore=shutil.ignore_patterns("vllm.sock")
    )
    fake.runtime(StateDir(copied).deployment("box")).stop()
    assert fake.names() == ["t", "deckard-launch-1"]


def test_second_start_is_refused(fake, monkeypatch):
    monkeypatch.setattr("deckard_deploy.running.process.runtime._SETTLE_S", 0.3)
    start_and_wait(fake)
    before = remaining_processes(fake)
    release, launch = fake.stored(fake.plan(port=free_port()), "deckard-launch-2")
    release.record(launch)
    with pytest.raises(EnvironmentUnfitError, match="is still running"):
        fake.runtime().start(release)
    assert remaining_processes(fake) == before


def test_used_port_is_refused_before_start(fake):
    with socket.create_server(("127.0.0.1", fake.port)):
        with pytest.raises(EnvironmentUnfitError, match=rf"\(pid {os.getpid()}\) listens there"):
            fake.started(fake.plan())
        assert remaining_processes(fake) == []
    start_and_wait(fake)  # the control


def test_missing_program_fails_the_start(fake):
    fake.program.unlink()
    with pytest.raises(StartFailedError, match=r"could not be started: .*No such file.*vllm"):
        fake.started(fake.plan())
    assert eventually(lambda: remaining_processes(fake) == [])
    assert fake.runtime().observe().state == "missing"


def test_poll_lines_yields_each_line_once(fake, monkeypatch):
    monkeypatch.setattr("deckard_deploy.running.process.runtime.LOG_BYTES", 20_000)
    release = fake.started(fake.plan(FAKE_LINES="2000"))
    runtime, lines = fake.runtime(), list[str]()
    while "Application startup complete." not in lines:
        lines += runtime.poll_lines()
    runtime.close()
    numbers = [int(line.split()[1]) for line in lines if line.startswith("line ")]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 1999
    assert fake.runtime().tail(3)[-1] == "Application startup complete."
    logs = sorted(path for path in release.folder.glob("vllm.log*"))
    assert [path.name for path in logs] == ["vllm.log", "vllm.log.1"]
    assert all(path.stat().st_size <= 20_000 for path in logs)


def test_poll_lines_from_near_the_end(fake):
    start_and_wait(fake)
    whole = fake.runtime().tail(99)
    assert fake.runtime().poll_lines(last=3) == whole[-3:]
    assert fake.runtime().poll_lines(last=0) == []
    assert fake.runtime().poll_lines(last=99) == whole


def test_runtime_without_a_start(fake):
    runtime = fake.runtime()
    assert runtime.observe().state == "missing"
    assert (runtime.poll_lines(), runtime.tail(5)) == ([], [])
    runtime.stop()
    runtime.close()
