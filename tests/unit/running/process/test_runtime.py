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
from deckard_deploy.running.process.supervision import ServerState
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Observation
from deckard_deploy.system.processes import is_alive, send_signal, wait_gone
from tests.support.fake_deployment import FakeDeployment
from tests.support.ports import free_port
from tests.support.waiting import eventually


def state(world: FakeDeployment) -> ServerState:
    return ServerState.model_validate_json(world.deployment.process_state.read_text())


def remaining_processes(world: FakeDeployment) -> list[object]:
    return [*world.processes(), *world.supervisors()]


def wait_until_exited(world: FakeDeployment) -> Observation:
    def look() -> Observation | None:
        seen = world.runtime().observe()
        return seen if seen.state == "exited" else None

    found = eventually(look)
    assert found
    return found


def start_and_wait(world: FakeDeployment) -> Release:
    release = world.started(world.plan())
    eventually(world.names)
    return release


def test_server_outlives_its_starter(world):
    release = start_and_wait(world)
    assert world.names() == ["t", "deckard-launch-1"]
    seen = world.runtime().observe()
    assert (seen.state, seen.plan_hash, seen.launch_id) == ("running", release.plan_hash, "deckard-launch-1")
    assert (seen.exit_code, seen.restart_count, seen.oom_killed) == (None, 0, False)
    supervisor = state(world).supervisor
    assert os.getpgid(supervisor.pid) != os.getpgrp()


def test_server_environment_has_no_secret(world):
    world.environment["LC_ALL"] = "C"
    world.started(world.plan(VLLM_X="1"))
    eventually(world.names)
    seen = {line.split()[1] for line in world.runtime().tail(100) if line.startswith("variable ")}
    allowed = {"PATH", "HOME", "LANG", "VLLM_X", "DECKARD_DEPLOYMENT", "SPT_NOENV", "LC_CTYPE"}
    assert {"PATH", "HOME", "VLLM_X"} <= seen <= allowed
    assert "canary" not in Path(f"/proc/{state(world).supervisor.pid}/environ").read_text()


def test_user_without_name_gets_one(world, monkeypatch):
    """PyTorch's import failed with `getpwuid(): uid not found` for a user without a name."""

    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    start_and_wait(world)
    assert "variable USER" in world.runtime().tail(100)


@pytest.mark.parametrize("mode", ["serve", "stubborn"])
def test_stop_leaves_no_process_and_no_state(world, mode):
    world.started(world.plan(grace=1, FAKE_MODE=mode))
    eventually(world.names)
    assert len(world.processes()) == 2
    runtime = world.runtime()
    runtime.stop()
    assert remaining_processes(world) == []
    assert runtime.observe().state == "missing"
    assert world.names() is None
    runtime.stop()  # idempotent


def test_stop_ends_server_by_sigterm_within_grace(world):
    release = start_and_wait(world)
    world.runtime().stop()
    assert release.launch() is not None
    # The server's own handler ran: `serve` exits with 0 on SIGTERM, and SIGKILL would have left 137.
    assert "stubborn" not in (release.folder / "vllm.log").read_text()


def test_crash_is_reported_with_code_and_last_line(world):
    world.started(world.plan(FAKE_MODE="crash"))
    seen = wait_until_exited(world)
    assert (seen.exit_code, seen.restart_count) == (3, 0)
    assert world.runtime().tail(1) == ["RuntimeError: it is made to fail"]
    assert eventually(lambda: remaining_processes(world) == [])


@pytest.mark.parametrize(("policy", "restarts"), [("no", 0), ("on-failure:1", 1), ("on-failure:2", 2)])
def test_crash_loop_ends(world, policy, restarts):
    world.started(world.plan(restart=policy, FAKE_MODE="crash"))
    seen = wait_until_exited(world)
    assert (seen.restart_count, seen.exit_code) == (restarts, 3)
    assert world.runtime().tail(99).count("RuntimeError: it is made to fail") == restarts + 1


@pytest.mark.parametrize(("policy", "restarts"), [("no", 0), ("on-failure:2", 2)])
def test_exit_with_code_0_is_a_crash(world, policy, restarts):
    world.started(world.plan(restart=policy, FAKE_MODE="quit"))
    seen = wait_until_exited(world)
    assert (seen.exit_code, seen.restart_count) == (0, restarts)


def test_restart_ends_old_workers(world):
    world.started(world.plan(restart="on-failure:9", FAKE_MODE="late-crash"))
    eventually(lambda: world.runtime().observe().restart_count >= 2)
    assert eventually(lambda: len(world.processes()) == 2)
    world.runtime().stop()
    assert remaining_processes(world) == []


def test_stop_between_two_restarts(world):
    world.started(world.plan(restart="on-failure:1000", FAKE_MODE="crash"))
    eventually(lambda: world.runtime().observe().state == "restarting")
    world.runtime().stop()
    assert remaining_processes(world) == []
    assert world.runtime().observe().state == "missing"


def test_sighup_ends_nothing(world):
    start_and_wait(world)
    before = world.processes()
    for process in world.supervisors():
        send_signal(process, signal.SIGHUP)
    world.runtime().observe()
    assert not any(wait_gone(process, 0.3) for process in before)
    assert world.names() is not None


def test_killed_supervisor_ends_everything(world):
    start_and_wait(world)
    send_signal(state(world).supervisor, signal.SIGKILL)
    assert eventually(lambda: remaining_processes(world) == [])
    seen = world.runtime().observe()
    assert (seen.state, seen.exit_code) == ("exited", 137)


def test_stop_after_killed_supervisor_and_guard(world):
    start_and_wait(world)
    server, supervisor = state(world).server, state(world).supervisor
    # The guard first: it would kill the worker as soon as the supervisor is gone.
    for process in sorted(world.supervisors(), key=lambda each: each == supervisor):
        send_signal(process, signal.SIGKILL)
    assert server
    # The server dies with its supervisor, its worker does not.
    assert eventually(lambda: not is_alive(server))
    assert len(world.processes()) == 1
    world.runtime().stop()
    assert remaining_processes(world) == []


def test_killed_server_is_a_failure(world):
    start_and_wait(world)
    server = state(world).server
    assert server
    send_signal(server, signal.SIGKILL)
    seen = wait_until_exited(world)
    assert seen.exit_code == 137
    assert eventually(lambda: remaining_processes(world) == [])


def test_server_is_restarted_on_full_disk(world):
    world.started(world.plan(restart="on-failure:1"))
    eventually(world.names)
    server = state(world).server
    assert server
    world.deployment.process_state.unlink()
    world.deployment.process_state.mkdir()  # so that no file can replace it
    send_signal(server, signal.SIGKILL)
    eventually(lambda: world.processes() and server not in world.processes() and world.names())
    world.deployment.process_state.rmdir()
    eventually(world.deployment.process_state.is_file)  # the supervisor writes it later
    assert (world.runtime().observe().restart_count, state(world).server in world.processes()) == (1, True)
    world.runtime().stop()
    assert remaining_processes(world) == []


def test_stop_trusts_no_recorded_pid(world):
    """A damaged or old record names a foreign process, here that of the test."""
    start_and_wait(world)
    record = json.loads(world.deployment.process_state.read_text())
    record["supervisor"]["pid"] = record["server"]["pid"] = os.getpid()
    world.deployment.process_state.write_text(json.dumps(record))
    world.runtime().stop()
    assert remaining_processes(world) == []


def test_stop_works_with_damaged_record(world):
    start_and_wait(world)
    world.deployment.process_state.write_text("{")
    with pytest.raises(IntegrityError, match=r"process\.json is damaged"):
        world.runtime().observe()
    world.runtime().stop()
    assert remaining_processes(world) == []
    assert world.runtime().observe().state == "missing"


def test_stop_after_moved_state_directory(world):
    start_and_wait(world)
    moved = StateDir(world.state.root.rename(world.state.root.with_name("moved"))).deployment("box")
    runtime = world.runtime(moved)
    assert runtime.observe().state == "running"
    runtime.stop()
    assert remaining_processes(world) == []
    assert runtime.observe().state == "missing"


def test_stop_in_copied_state_directory_ends_nothing(world):
    start_and_wait(world)
    copied = shutil.copytree(world.state.root, world.state.root.with_name("copy"))
    world.runtime(StateDir(copied).deployment("box")).stop()
    assert world.names() == ["t", "deckard-launch-1"]


def test_second_start_is_refused(world, monkeypatch):
    monkeypatch.setattr("deckard_deploy.running.process.runtime._SETTLE_S", 0.3)
    start_and_wait(world)
    before = remaining_processes(world)
    release, launch = world.stored(world.plan(port=free_port()), "deckard-launch-2")
    release.record(launch)
    with pytest.raises(EnvironmentUnfitError, match="is still running"):
        world.runtime().start(release)
    assert remaining_processes(world) == before


def test_used_port_is_refused_before_start(world):
    with socket.create_server(("127.0.0.1", world.port)):
        with pytest.raises(EnvironmentUnfitError, match=rf"\(pid {os.getpid()}\) listens there"):
            world.started(world.plan())
        assert remaining_processes(world) == []
    start_and_wait(world)  # the control


def test_missing_program_fails_the_start(world):
    world.program.unlink()
    with pytest.raises(StartFailedError, match=r"could not be started: .*No such file.*vllm"):
        world.started(world.plan())
    assert eventually(lambda: remaining_processes(world) == [])
    assert world.runtime().observe().state == "missing"


def test_poll_lines_yields_each_line_once(world, monkeypatch):
    monkeypatch.setattr("deckard_deploy.running.process.runtime.LOG_BYTES", 20_000)
    release = world.started(world.plan(FAKE_LINES="2000"))
    runtime, lines = world.runtime(), list[str]()
    while "Application startup complete." not in lines:
        lines += runtime.poll_lines()
    runtime.close()
    numbers = [int(line.split()[1]) for line in lines if line.startswith("line ")]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 1999
    assert world.runtime().tail(3)[-1] == "Application startup complete."
    logs = sorted(path for path in release.folder.glob("vllm.log*"))
    assert [path.name for path in logs] == ["vllm.log", "vllm.log.1"]
    assert all(path.stat().st_size <= 20_000 for path in logs)


def test_poll_lines_from_near_the_end(world):
    start_and_wait(world)
    whole = world.runtime().tail(99)
    assert world.runtime().poll_lines(last=3) == whole[-3:]
    assert world.runtime().poll_lines(last=0) == []
    assert world.runtime().poll_lines(last=99) == whole


def test_runtime_without_a_start(world):
    runtime = world.runtime()
    assert runtime.observe().state == "missing"
    assert (runtime.poll_lines(), runtime.tail(5)) == ([], [])
    runtime.stop()
    runtime.close()
