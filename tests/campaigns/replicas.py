"""Replicas under load: a rolling change, a failing one, one without draining, a killed and a frozen engine.

    python -m tests.campaigns.replicas [--replicas 4] [--clients 32]

The real nginx and supervisors; small servers as engines, which write down what they are asked. Prints a JSON line for
each step. Exits with 1 if a request failed that must not, or one was answered twice.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from deckard_deploy.errors import DeployError
from deckard_deploy.operations import down, replicas
from deckard_deploy.startup.readiness import Outcome
from tests.support.fake_group import Clients, FakeGroup
from tests.support.waiting import eventually

DELAY_S = 0.2  # of an answer


def change(group: FakeGroup) -> None:
    group.run(group.planned(NUMBER="2"))


def failing_change(group: FakeGroup) -> None:
    try:
        group.run(group.planned(FAKE_MODE="crash"))
    except DeployError as error:
        print(error.message, file=sys.stderr)


def stop_without_draining(group: FakeGroup) -> None:
    down.stop(group.group().replica(1), group.report, purge=False)


def kill(group: FakeGroup) -> None:
    os.kill(group.server(1).pid, signal.SIGKILL)
    assert eventually(lambda: replicas.answers(group.group(), 1).outcome is Outcome.READY)


def freeze(group: FakeGroup) -> None:
    process = group.server(1).pid
    os.kill(process, signal.SIGSTOP)
    time.sleep(10)
    os.kill(process, signal.SIGCONT)


def measure(group: FakeGroup, clients: int, step: Callable[[FakeGroup], None]) -> dict[str, float]:
    """Run one step under load."""
    with Clients(group, clients) as load:
        assert eventually(lambda: len(load.answers) >= clients)
        began = time.monotonic()
        step(group)
        took = time.monotonic() - began
        enough = len(load.answers) + clients
        assert eventually(lambda: len(load.answers) >= enough)
    heard = group.heard()
    return {
        "requests": len(load.answers),
        "failed": len(load.failed()),
        "answered_twice": sum(heard[text] > 1 for text in load.answers),
        "fewest_in_list": load.fewest,
        "seconds": round(took, 1),
    }


def main() -> int:
    """Run all steps. Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    may_fail = {
        "stop_without_draining": None,
        "kill": options.clients,
        "freeze": 0,
        "change": 0,
        "failing_change": 0,
    }
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="replicas-") as folder:
        group = FakeGroup(Path(folder), options.replicas, delay_s=DELAY_S)
        try:
            for step in (change, failing_change, stop_without_draining, kill, freeze):
                group.run(group.planned())
                found = measure(group, options.clients, step)
                print(json.dumps({"step": step.__name__, **found}), flush=True)
                allowed = may_fail[step.__name__]
                wrong += found["answered_twice"] > 0
                wrong += allowed is not None and found["failed"] > allowed
        finally:
            group.end()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
