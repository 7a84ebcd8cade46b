"""`watch` of replicas: each is watched as one engine is; one that does not answer gets no requests until it does."""

import threading
import time
from typing import NamedTuple

from deckard_deploy.errors import DeployError, DeploymentBusyError
from deckard_deploy.operations import replicas, watch
from deckard_deploy.operations.deployments import open_deployment, select_deployment
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.replicas import Group
from deckard_deploy.operations.reporting import Reporter, SilentReporter
from deckard_deploy.running import group as membership
from deckard_deploy.running.deploy import observe
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import Releases
from deckard_deploy.running.watch import Health, exclusive_watch

POLL_S = 0.2


class Pace(NamedTuple):
    """Seconds between two questions, and for an answer."""

    interval_s: float
    deadline_s: float


def run(selection: Selection, report: Reporter, *, interval_s: float, deadline_s: float) -> None:
    """Keep the selected deployment answering; of a group each replica and the front.

    Raises DeploymentBusyError (watched already), StartFailedError (given up; of a group when nothing else is left).
    """
    deployment = select_deployment(selection)
    group = replicas.find_group(deployment)
    if group is None:
        watch.run(selection, report, interval_s=interval_s, deadline_s=deadline_s)
        return
    with exclusive_watch(group.front):
        error = _watch_all(group, report, Pace(interval_s, deadline_s))
    report.say(f"stopped  {group.name}: nothing is left to watch")
    if error:
        raise error


def _watch_all(group: Group, report: Reporter, pace: Pace) -> DeployError | None:
    """Watch each replica, and those that an `up` adds, until none is left. Return the error of one, if there is one."""
    watched: dict[int, ReplicaWatch] = {}
    while True:
        _watch_new(group, report, pace, watched)
        if not _any_lives(watched):
            return next((each.error for each in watched.values() if each.error), None)
        _keep_front(group, report)
        until = time.monotonic() + pace.interval_s
        while time.monotonic() < until and _any_lives(watched):
            time.sleep(POLL_S)


def _watch_new(group: Group, report: Reporter, pace: Pace, watched: dict[int, "ReplicaWatch"]) -> None:
    """Start the watch of each replica that has none, one start after the other, as `up` does. Forget removed ones."""
    now = replicas.find_group(group.ref)
    numbers = now.numbers if now else range(0)
    for number in set(watched).difference(numbers):
        if not watched[number].is_alive():
            del watched[number]
    for number in numbers:
        if number not in watched:
            watched[number] = ReplicaWatch(group, number, report, pace)
            watched[number].first_round.wait()


def _any_lives(watched: dict[int, "ReplicaWatch"]) -> bool:
    return any(each.is_alive() for each in watched.values())


class ReplicaWatch(threading.Thread):
    """The watch over one replica, in a thread: a frozen one does not hold up the questions to others."""

    def __init__(self, group: Group, number: int, report: Reporter, pace: Pace) -> None:
        deployment = group.replica(number)
        super().__init__(name=f"watch of {deployment.name}", daemon=True)
        self.first_round = threading.Event()
        self.error: DeployError | None = None
        self._group, self._number, self._pace = group, number, pace
        self._report = _NamedReporter(deployment.name, report)
        self.start()

    def run(self) -> None:
        """Watch until nothing is left to watch, or the watch gives up; the thread's body."""
        rounds = watch.rounds(
            self._group.replica(self._number),
            self._report,
            interval_s=self._pace.interval_s,
            deadline_s=self._pace.deadline_s,
            on_health=self._set_member,
        )
        try:
            for _ in rounds:
                self.first_round.set()
        except DeployError as error:
            self.error = error
            self._report.say(f"ended    {error.message}")
        finally:
            self.first_round.set()

    def _set_member(self, health: Health) -> None:
        """Give the replica requests, or none. A verb that changes the group decides that itself."""
        front = self._group.front
        serves = health == "answers"
        if (self._number in membership.members(front)) == serves:
            return
        try:
            with lock_deployment(front, verb="watch"):
                if serves:
                    replicas.put_in(self._group, self._number)
                    self._report.say("in       it answers, and gets requests again")
                else:
                    membership.take_out(front, self._number)
                    self._report.say("out      it does not answer, and gets no requests")
        except DeploymentBusyError:
            return


class _NamedReporter(SilentReporter):
    """Reports the lines of one of several watches under its name, without displays, of which there may be one."""

    def __init__(self, name: str, report: Reporter) -> None:
        self._name, self._report = name, report

    def say(self, line: str) -> None:
        """Report the line."""
        self._report.say(f"{self._name}  {line}")

    def command(self, line: str) -> None:
        """Report the command line."""
        self._report.command(line)


def _keep_front(group: Group, report: Reporter) -> None:
    """Start the front if it has ended, unless `down` has stopped it. What it does not survive is reported."""
    try:
        with open_deployment(group.directory, group.name, report) as context:
            if observe(context.runtimes).state not in ("missing", "exited"):
                return
        current = Releases(group.front).current()
        if current is None or current.recorded_launch().state == "stopped":
            return
        with lock_deployment(group.front, verb="watch"):
            replicas.start_front(group, report)
    except DeploymentBusyError:
        return
    except DeployError as error:
        report.say(f"front    {error.message}")
