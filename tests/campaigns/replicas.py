"""Replicas under load: a rolling change, a failing one, one without draining, a killed and a frozen engine.

    python -m tests.campaigns.replicas [--replicas 4] [--clients 32] [--engine vllm-0.32.0-cpu --engines FOLDER]

The real nginx and supervisors; small servers as engines, which write down what they are asked, or with --engine the
real engine, whose own counts are compared with what the clients got. Killed and frozen engines are under `watch`.
Prints a JSON line for each step. Exits with 1 if a request failed that must not, or one was answered twice.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from deckard_deploy.errors import DeployError
from deckard_deploy.operations import down, group_watch, replicas
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.plan import GroupPlan
from deckard_deploy.startup.readiness import Outcome
from deckard_deploy.system.processes import ProcessIdentity
from tests.support.fake_group import Clients, FakeGroup
from tests.support.real_group import RealGroup
from tests.support.waiting import eventually

DELAY_S = 0.2  # of an answer
INTERVAL_S, DEADLINE_S = 2.0, 15.0  # of the watch
BACK_S = 600.0  # more than a start takes
SETTLED_S = 2.0  # several rounds of counting


def changed(group: FakeGroup) -> GroupPlan:
    """Return the plan of the first step, which the others keep."""
    return group.planned(NUMBER="2")


def change(group: FakeGroup) -> None:
    group.run(changed(group))


def failing_change(group: FakeGroup) -> None:
    try:
        group.run(group.planned(FAKE_MODE="crash"))
    except DeployError as error:
        print(error.message, file=sys.stderr)


def stop_without_draining(group: FakeGroup) -> None:
    down.stop(group.group().replica(1), group.report, purge=False)


def kill(group: FakeGroup) -> None:
    """Kill an engine with SIGKILL, until it serves again."""
    killed = group.server(1)
    os.kill(killed.pid, signal.SIGKILL)
    assert eventually(lambda: serves_again(group, 1, killed), within_s=BACK_S)


def freeze(group: FakeGroup) -> None:
    """Stop an engine with SIGSTOP for ever, until another one serves in its place."""
    frozen = group.server(2)
    os.kill(frozen.pid, signal.SIGSTOP)
    assert eventually(lambda: 2 not in group.members(), within_s=BACK_S)
    assert eventually(lambda: serves_again(group, 2, frozen), within_s=BACK_S)


def serves_again(group: FakeGroup, number: int, before: ProcessIdentity) -> bool:
    """Return True if another engine than the one before answers, and gets requests."""
    try:
        if group.server(number) == before or number not in group.members():
            return False
    except (FileNotFoundError, AssertionError):  # it is being started
        return False
    return replicas.answers(group.group(), number).outcome is Outcome.READY


def start_watch(group: FakeGroup) -> threading.Thread:
    """Watch the group until it is stopped."""
    selection = Selection(group.state.root, group.name)
    pace = {"interval_s": INTERVAL_S, "deadline_s": DEADLINE_S}
    watch = threading.Thread(target=group_watch.run, args=(selection, group.report), kwargs=pace, daemon=True)
    watch.start()
    return watch


def measure(group: FakeGroup, clients: int, step: Callable[[FakeGroup], None]) -> dict[str, float]:
    """Run one step under load."""
    before = settled_count(group)
    with Clients(group, clients) as load:
        assert eventually(lambda: len(load.answers) >= clients, within_s=BACK_S)
        began = time.monotonic()
        step(group)
        took = time.monotonic() - began
        enough = len(load.answers) + clients
        assert eventually(lambda: len(load.answers) >= enough, within_s=BACK_S)
    found = {"requests": len(load.answers), "failed": len(load.failed())}
    if isinstance(group, RealGroup):
        found["generated"] = int(settled_count(group) - before)
        found["twice"] = max(0, found["generated"] - len(load.answers))
    else:
        heard = group.heard()
        found["twice"] = sum(heard[text] > 1 for text in load.answers)
    return {**found, "fewest_in_list": load.fewest, "seconds": round(took, 1)}


def settled_count(group: FakeGroup) -> float:
    """Return what the engines have answered, as soon as they count no more."""
    if not isinstance(group, RealGroup):
        return 0
    last = -1.0
    while last != group.generated():
        last = group.generated()
        time.sleep(SETTLED_S)
    return last


def made(options: argparse.Namespace, folder: Path) -> FakeGroup:
    """Return the group of small servers, or of the real engine."""
    if options.engine:
        return RealGroup(folder, options.replicas, engine=options.engine, engines=options.engines.absolute())
    return FakeGroup(folder, options.replicas, delay_s=DELAY_S)


def main() -> int:
    """Run all steps. Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--engine", help="an engine of the catalog that runs without docker")
    parser.add_argument("--engines", type=Path, help="the folder in which it is installed")
    options = parser.parse_args()
    may_fail = {
        "stop_without_draining": None,
        "kill": options.clients,
        "freeze": options.clients,
        "change": 0,
        "failing_change": 0,
    }
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="replicas-") as folder:
        group = made(options, Path(folder))
        watch: threading.Thread | None = None
        try:
            for step in (change, failing_change, stop_without_draining, kill, freeze):
                if step is not freeze:
                    group.run(group.planned() if step is change else changed(group))
                if step is kill:
                    watch = start_watch(group)
                found = measure(group, options.clients, step)
                print(json.dumps({"step": step.__name__, **found}), flush=True)
                allowed = may_fail[step.__name__]
                wrong += found["twice"] > 0
                wrong += allowed is not None and found["failed"] > allowed
            group.stop()
            if watch:
                watch.join()
        finally:
            group.end()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
