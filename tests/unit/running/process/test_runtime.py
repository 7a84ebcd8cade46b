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
from deckard_deploy.system.processes import is_alive, send, wait_gone
from tests.support.fake_deployment import World
from tests.support.ports import free_port
from tests.support.waiting import eventually


def state(world: World) -> ServerState:
    return ServerState.model_validate_json(world.deployment.process_state.read_text())


def left_of(world: World) -> list[object]:
    return [*world.processes(), *world.supervisors()]


def ended(world: World) -> Observation:
    def look() -> Observation | None:
        seen = world.runtime().observe()
        return seen if seen.state == "exited" else None

    found = eventually(look)
    assert found
    return found


def serving(world: World) -> Release:
    release = world.started(world.plan())
    eventually(world.names)
    return release


def test_a_server_outlives_who_started_it_and_knows_its_launch(world):
    release = serving(world)
    assert world.names() == ["t", "deckard-launch-1"]
    seen = world.runtime().observe()
    assert (seen.state, seen.plan_hash, seen.launch_id) == ("running", release.plan_hash, "deckard-launch-1")
    assert (seen.exit_code, seen.restart_count, seen.oom_killed) == (None, 0, False)
    supervisor = state(world).supervisor
    assert os.getpgid(supervisor.pid) != os.getpgrp()


def test_the_server_sees_what_the_plan_says_and_no_secret(world):
    world.environment["LC_ALL"] = "C"
    world.started(world.plan(VLLM_X="1"))
    eventually(world.names)
    seen = {line.split()[1] for line in world.runtime().tail(100) if line.startswith("variable ")}
    allowed = {"PATH", "HOME", "LANG", "VLLM_X", "DECKARD_DEPLOYMENT", "SPT_NOENV", "LC_CTYPE"}
    assert {"PATH", "HOME", "VLLM_X"} <= seen <= allowed
    assert "canary" not in Path(f"/proc/{state(world).supervisor.pid}/environ").read_text()


def test_a_user_without_a_name_gets_one(world, monkeypatch):
    """PyTorch's import ended in `getpwuid(): uid not found` in a container that was given a user's number alone."""

    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    serving(world)
    assert "variable USER" in world.runtime().tail(100)


@pytest.mark.parametrize("mode", ["serve", "stubborn"])
def test_stopping_leaves_no_process_and_no_state(world, mode):
    world.started(world.plan(grace=1, FAKE_MODE=mode))
    eventually(world.names)
    assert len(world.processes()) == 2
    runtime = world.runtime()
    runtime.stop()
    assert left_of(world) == []
    assert runtime.observe().state == "missing"
    assert world.names() is None
    runtime.stop()  # idempotent


def test_a_server_ends_by_sigterm_before_the_grace_is_over(world):
    release = serving(world)
    world.runtime().stop()
    assert release.launch() is not None
    # The server's own handler ran: `serve` exits with 0 on SIGTERM, and SIGKILL would have left 137.
    assert "stubborn" not in (release.folder / "vllm.log").read_text()


def test_a_crash_is_reported_with_its_code_and_its_last_words(world):
    world.started(world.plan(FAKE_MODE="crash"))
    seen = ended(world)
    assert (seen.exit_code, seen.restart_count) == (3, 0)
    assert world.runtime().tail(1) == ["RuntimeError: it is made to fail"]
    assert eventually(lambda: left_of(world) == [])


@pytest.mark.parametrize(("policy", "restarts"), [("no", 0), ("on-failure:1", 1), ("on-failure:2", 2)])
def test_a_crash_loop_ends(world, policy, restarts):
    world.started(world.plan(restart=policy, FAKE_MODE="crash"))
    seen = ended(world)
    assert (seen.restart_count, seen.exit_code) == (restarts, 3)
    assert world.runtime().tail(99).count("RuntimeError: it is made to fail") == restarts + 1


@pytest.mark.parametrize(("policy", "restarts"), [("no", 0), ("on-failure:2", 2)])
def test_a_server_that_ends_with_code_0_by_itself_has_crashed(world, policy, restarts):
    world.started(world.plan(restart=policy, FAKE_MODE="quit"))
    seen = ended(world)
    assert (seen.exit_code, seen.restart_count) == (0, restarts)


def test_a_restarted_server_has_none_of_the_old_ones_workers(world):
    world.started(world.plan(restart="on-failure:9", FAKE_MODE="late-crash"))
    eventually(lambda: world.runtime().observe().restart_count >= 2)
    assert eventually(lambda: len(world.processes()) == 2)
    world.runtime().stop()
    assert left_of(world) == []


def test_a_crash_loop_can_be_stopped_between_two_starts(world):
    world.started(world.plan(restart="on-failure:1000", FAKE_MODE="crash"))
    eventually(lambda: world.runtime().observe().state == "restarting")
    world.runtime().stop()
    assert left_of(world) == []
    assert world.runtime().observe().state == "missing"


def test_a_terminal_that_goes_away_ends_nothing(world):
    serving(world)
    before = world.processes()
    for process in world.supervisors():
        send(process, signal.SIGHUP)
    world.runtime().observe()
    assert not any(wait_gone(process, 0.3) for process in before)
    assert world.names() is not None


def test_a_killed_supervisor_takes_everything_with_it(world):
    serving(world)
    send(state(world).supervisor, signal.SIGKILL)
    assert eventually(lambda: left_of(world) == [])
    seen = world.runtime().observe()
    assert (seen.state, seen.exit_code) == ("exited", 137)


def test_with_supervisor_and_guard_killed_the_next_stop_finds_the_rest(world):
    serving(world)
    server = state(world).server
    for process in world.supervisors():
        send(process, signal.SIGKILL)
    assert server
    # The server dies with its supervisor, its worker does not.
    assert eventually(lambda: not is_alive(server))
    assert len(world.processes()) == 1
    world.runtime().stop()
    assert left_of(world) == []


def test_a_killed_server_is_a_failure_like_any_other(world):
    serving(world)
    server = state(world).server
    assert server
    send(server, signal.SIGKILL)
    seen = ended(world)
    assert seen.exit_code == 137
    assert eventually(lambda: left_of(world) == [])


def test_a_server_is_restarted_although_a_full_disk_keeps_that_from_being_written_down(world):
    world.started(world.plan(restart="on-failure:1"))
    eventually(world.names)
    server = state(world).server
    assert server
    world.deployment.process_state.unlink()
    world.deployment.process_state.mkdir()  # no file can take its name
    send(server, signal.SIGKILL)
    eventually(lambda: world.processes() and server not in world.processes() and world.names())
    world.deployment.process_state.rmdir()
    eventually(world.deployment.process_state.is_file)  # and it is made up for
    assert (world.runtime().observe().restart_count, state(world).server in world.processes()) == (1, True)
    world.runtime().stop()
    assert left_of(world) == []


def test_stopping_believes_no_pid_that_was_written_down(world):
    """A damaged or old record names somebody else's process: this very test's."""
    serving(world)
    record = json.loads(world.deployment.process_state.read_text())
    record["supervisor"]["pid"] = record["server"]["pid"] = os.getpid()
    world.deployment.process_state.write_text(json.dumps(record))
    world.runtime().stop()
    assert left_of(world) == []


def test_a_damaged_record_is_said_and_does_not_keep_the_server_alive(world):
    serving(world)
    world.deployment.process_state.write_text("{")
    with pytest.raises(IntegrityError, match=r"process\.json is damaged"):
        world.runtime().observe()
    world.runtime().stop()
    assert left_of(world) == []
    assert world.runtime().observe().state == "missing"


def test_a_state_directory_that_was_moved_while_it_ran_is_stopped_where_it_is_now(world):
    serving(world)
    moved = StateDir(world.state.root.rename(world.state.root.with_name("moved"))).deployment("box")
    runtime = world.runtime(moved)
    assert runtime.observe().state == "running"
    runtime.stop()
    assert left_of(world) == []
    assert runtime.observe().state == "missing"


def test_stopping_a_copy_leaves_the_original_alone(world):
    serving(world)
    copied = shutil.copytree(world.state.root, world.state.root.with_name("copy"))
    world.runtime(StateDir(copied).deployment("box")).stop()
    assert world.names() == ["t", "deckard-launch-1"]


def test_a_second_start_is_refused_while_the_first_runs(world, monkeypatch):
    monkeypatch.setattr("deckard_deploy.running.process.runtime._SETTLE_S", 0.3)
    serving(world)
    before = left_of(world)
    release, launch = world.stored(world.plan(port=free_port()), "deckard-launch-2")
    release.record(launch)
    with pytest.raises(EnvironmentUnfitError, match="is still running"):
        world.runtime().start(release)
    assert left_of(world) == before


def test_a_port_that_somebody_has_is_refused_before_anything_starts(world):
    with socket.create_server(("127.0.0.1", world.port)):
        with pytest.raises(EnvironmentUnfitError, match=rf"\(pid {os.getpid()}\) listens there"):
            world.started(world.plan())
        assert left_of(world) == []
    serving(world)  # the control


def test_a_program_that_is_not_there_is_said(world):
    world.program.unlink()
    with pytest.raises(StartFailedError, match=r"could not be started: .*No such file.*vllm"):
        world.started(world.plan())
    assert eventually(lambda: left_of(world) == [])
    assert world.runtime().observe().state == "missing"


def test_lines_come_once_and_in_order_and_the_log_stays_bounded(world, monkeypatch):
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


def test_a_log_can_be_followed_from_near_its_end(world):
    serving(world)
    whole = world.runtime().tail(99)
    assert world.runtime().poll_lines(last=3) == whole[-3:]
    assert world.runtime().poll_lines(last=0) == []
    assert world.runtime().poll_lines(last=99) == whole


def test_nothing_was_ever_started(world):
    runtime = world.runtime()
    assert runtime.observe().state == "missing"
    assert (runtime.poll_lines(), runtime.tail(5)) == ([], [])
    runtime.stop()
    runtime.close()
