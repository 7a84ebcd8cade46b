"""`watch` of replicas: each is watched as one engine is; one that does not answer gets no requests until it does."""

import contextlib
import threading
import time
from typing import NamedTuple

from deckard_deploy.errors import (
    BadInputError,
    DeployError,
    DeploymentBusyError,
    IntegrityError,
    StartFailedError,
)
from deckard_deploy.operations import replicas, watch
from deckard_deploy.operations.deployments import open_deployment, select_deployment
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.replicas import Group
from deckard_deploy.operations.reporting import Reporter, SilentReporter
from deckard_deploy.running import group as membership
from deckard_deploy.running.deploy import observe
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import Launch, ReleaseFolder, Releases
from deckard_deploy.running.watch import WINDOW_S, Health, exclusive_watch

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
            return _result(group, watched)
        _keep_front(group, report)
        until = time.monotonic() + pace.interval_s
        while time.monotonic() < until and _any_lives(watched):
            time.sleep(POLL_S)


def _watch_new(group: Group, report: Reporter, pace: Pace, watched: dict[int, "ReplicaWatch"]) -> None:
    """Start the watch of each replica that needs one, one start after the other, as `up` does. Forget removed ones."""
    first = not watched
    now = replicas.find_group(group.ref)
    numbers = now.numbers if now else range(0)
    for number in set(watched).difference(numbers):
        if not watched[number].is_alive():
            del watched[number]
    for number in numbers:
        if _needs_watch(group, number, watched.get(number), first=first):
            watched[number] = ReplicaWatch(group, number, report, pace)
            watched[number].first_round.wait()
            _keep_front(group, report)


def _result(group: Group, watched: dict[int, "ReplicaWatch"]) -> DeployError | None:
    """Return the error with which the watch of a group ends; None after a `down`."""
    if _is_down(group):
        return None
    if not watched:
        return BadInputError(
            f"{group.name} was never ready: there is nothing to watch",
            hint=f"deckard-deploy up --name {group.name}",
        )
    return next((each.error for each in watched.values() if each.error), None)


def _needs_watch(group: Group, number: int, before: "ReplicaWatch | None", *, first: bool) -> bool:
    """Return True for a replica that was ready, and is not watched. Later than first, what is stopped stays so.

    One that was given up is watched again after another start of it, and after the time in which restarts count.
    """
    if before and before.is_alive():
        return False
    try:
        current = _current(group, number)
    except IntegrityError:  # the first watch of it reports that
        return first
    if current is None or first:
        return current is not None
    launch = current.launch_or_none()
    if launch is None or launch.state in ("stopped", "failed"):
        return False
    return before is None or before.is_over(launch)


def _current(group: Group, number: int) -> ReleaseFolder | None:
    return Releases(group.directory.deployment(group.replica(number).name)).current()


def _is_down(group: Group) -> bool:
    """Return True if `down` has stopped the group."""
    if replicas.find_group(group.ref) is None:
        return True
    current = Releases(group.front).current()
    launch = current.launch_or_none() if current else None
    return launch is not None and launch.state == "stopped"


def _any_lives(watched: dict[int, "ReplicaWatch"]) -> bool:
    return any(each.is_alive() for each in watched.values())


class ReplicaWatch(threading.Thread):
    """The watch over one replica, in a thread: a frozen one does not hold up the questions to others."""

    def __init__(self, group: Group, number: int, report: Reporter, pace: Pace) -> None:
        deployment = group.replica(number)
        super().__init__(name=f"watch of {deployment.name}", daemon=True)
        self.first_round = threading.Event()
        self.error: DeployError | None = StartFailedError(
            f"the watch of {deployment.name} has ended by an error in this program",
            hint=f"deckard-deploy watch --name {group.name}",
        )
        self._ended_s = 0.0
        self._last_launch: str | None = None
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
            self.error = None
        except DeployError as error:
            self.error = error
            self._report.say(f"ended    {error.message}")
        finally:
            self._ended_s = time.monotonic()
            self._last_launch = self._launch_id()
            self.first_round.set()

    def is_over(self, launch: Launch) -> bool:
        """Return True if the end of this watch says nothing of a launch any more."""
        return launch.launch_id != self._last_launch or time.monotonic() - self._ended_s > WINDOW_S

    def _launch_id(self) -> str | None:
        with contextlib.suppress(IntegrityError):
            current = _current(self._group, self._number)
            launch = current.launch_or_none() if current else None
            return launch.launch_id if launch else None
        return None

    def _set_member(self, health: Health) -> None:
        """Give the replica requests, or none. A verb that changes the group decides that itself.

        The last one that has requests keeps them until it is certain that it cannot answer: they go nowhere else.
        """
        front = self._group.front
        serves = health == "answers"
        if (self._number in membership.members(front)) == serves:
            return
        try:
            with lock_deployment(front, verb="watch"):
                if serves:
                    replicas.put_in(self._group, self._number)
                    self._report.say("in       it answers, and gets requests again")
                elif health == "dead" or membership.members(front) != {self._number}:
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
        with lock_deployment(group.front, verb="watch"):
            current = Releases(group.front).current()
            if current is None or current.recorded_launch().state == "stopped":
                return
            replicas.start_front(group, report)
    except DeploymentBusyError:
        return
    except DeployError as error:
        report.say(f"front    {error.message}")
