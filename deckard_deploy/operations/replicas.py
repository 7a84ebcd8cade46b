"""Replicas: `up` and the other verbs that change a group. One replica is changed at a time, and proven before the next.

The caller's verb holds the front's lock throughout, and each step the lock of its replica.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import BadInputError, DeployError, StartFailedError, TimedOutError
from deckard_deploy.operations import down as down_verb
from deckard_deploy.operations import rollback as rollback_verb
from deckard_deploy.operations import start as start_verb
from deckard_deploy.operations import status
from deckard_deploy.operations import up as up_verb
from deckard_deploy.operations import wait as wait_verb
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.deployments import DeploymentRef, open_deployment, select_deployment
from deckard_deploy.operations.doctor import refuse_unfit
from deckard_deploy.operations.gateway import (
    ensure_gateway_files,
    has_stale_keys,
    refuse_unfit_gateway,
    reload_gateway_keys,
    report_exposure,
)
from deckard_deploy.operations.locked import require_locked
from deckard_deploy.operations.monitoring import stop_monitoring
from deckard_deploy.operations.options import PLAIN_UP, Choice, Selection, UpOptions
from deckard_deploy.operations.plan import GroupPlan, HostPlan, plan_group, refuse_what_cannot_run
from deckard_deploy.operations.readiness import probe
from deckard_deploy.operations.release import create_release, renew_gateway_config
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.operations.service import boot_sentence
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.replicas import replica_name
from deckard_deploy.rendering.gateway import REPLICAS, Member, render_replicas
from deckard_deploy.running import group as membership
from deckard_deploy.running.deploy import DeploymentContext, decide, deploy, observe
from deckard_deploy.running.layout import DeploymentDir, StateDir, state_directory
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import Release, Releases
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.startup.readiness import Outcome, Readiness
from deckard_deploy.system.files import private_folder, read_regular, remove_folder, write_atomically
from deckard_deploy.system.ports import require_free

FRONT_TIMEOUT_S, POLL_S = 60.0, 0.3
DRAIN_S = 900.0  # after that the requests of a replica are cut: one client must not hold up a change for ever
ANSWER_S = 60.0


class Group(NamedTuple):
    """A front of this host and its replicas."""

    directory: StateDir
    name: str
    size: int

    @property
    def front(self) -> DeploymentDir:
        """The folder of the front."""
        return self.directory.deployment(self.name)

    @property
    def ref(self) -> DeploymentRef:
        """The deployment of the front."""
        return DeploymentRef(self.directory, self.name)

    @property
    def numbers(self) -> range:
        """The numbers of the replicas."""
        return range(1, self.size + 1)

    def replica(self, number: int) -> DeploymentRef:
        """Return the deployment of a replica."""
        return DeploymentRef(self.directory, replica_name(self.name, number))

    def selection(self, number: int) -> Selection:
        """Return the selection of a replica, for a verb of one deployment."""
        return Selection(self.directory.root, self.replica(number).name)


def find_group(deployment: DeploymentRef) -> Group | None:
    """Return the group whose front the deployment is; None for one engine, or one replica."""
    record = membership.read(deployment.directory.deployment(deployment.name))
    return Group(*deployment, record.count) if record else None


def member(selection: Selection, number: int) -> Selection:
    """Return the selection of one replica. Raises BadInputError for another number, and without replicas."""
    deployment = select_deployment(selection)
    group = find_group(deployment)
    if group is None:
        raise BadInputError(f"{deployment.name} has no replicas")
    if number not in group.numbers:
        raise BadInputError(f"{group.name} has {group.size} replicas", hint=f"--replica 1 to {group.size}")
    return Selection(selection.state_dir, group.replica(number).name)


def read_status(selection: Selection, report: Reporter) -> list[dict[str, Any]] | None:
    """Return the facts of a front, then those of each replica; None for a deployment of one engine."""
    group = find_group(select_deployment(selection))
    if group is None:
        return None
    names = [group.name, *(group.replica(number).name for number in group.numbers)]
    facts = [status.read_all(Selection(selection.state_dir, name), report)[0] for name in names]
    serving = membership.members(group.front)
    for number in group.numbers:
        facts[number]["gets_requests"] = number in serving
    return facts


def up(choice: Choice, state_dir: Path | None, report: Reporter, options: UpOptions = PLAIN_UP) -> HostPlan:
    """Bring the endpoint of a choice up, with one engine or replicas, and prove it ready. Return its plan.

    Raises the errors of `up.prepare` and `up.run`.
    """
    directory = state_directory(state_dir)
    resolved = resolve_choice(choice, report, directory)
    if resolved.replicas is None:
        planned = up_verb.prepare(resolved, directory, report, options)
        up_verb.run(planned, directory, report, upgrade=options.upgrade)
        return planned
    planned_group = prepare(resolved, directory, report, options)
    run(planned_group, directory, report, upgrade=options.upgrade)
    return HostPlan(resolved, planned_group.front, planned_group.replicas[0].memory)


def dry_run(choice: Choice, state_dir: Path | None, report: Reporter, options: UpOptions = PLAIN_UP) -> None:
    """Report the actions of `up`. Nothing is changed. Raises the errors with which `up` would refuse to start."""
    directory = state_directory(state_dir)
    resolved = resolve_choice(choice, report, directory)
    if resolved.replicas is None:
        planned = up_verb.prepare(resolved, directory, report, options)
        up_verb.explain(planned.plan, directory, report, up_verb.Wish(resolved.asked, options.upgrade))
        return
    for one in prepare(resolved, directory, report, options).replicas:
        report.say(f"replica  {one.plan.deployment}")
        up_verb.explain(one.plan, directory, report, up_verb.Wish(one.resolved.asked, options.upgrade))


def prepare(resolved: Resolved, directory: StateDir, report: Reporter, options: UpOptions) -> GroupPlan:
    """Plan replicas for this host, and refuse what cannot run here. Nothing is written.

    Raises BadInputError, IntegrityError, DoesNotFitError, EnvironmentUnfitError.
    """
    planned = plan_group(resolved, directory)
    _refuse_other_deployments(planned, directory)
    refuse_unfit_gateway(planned.front, directory)
    for one in planned.replicas:
        report.say(f"plan     {one.plan.deployment} {one.plan.hash}: {one.plan.model} on {one.plan.profile}")
        if options.locked:
            require_locked(one.resolved, one.plan)
        refuse_what_cannot_run(one)
        refuse_unfit(one, directory, report, force=options.force)
    return planned


def _refuse_other_deployments(planned: GroupPlan, directory: StateDir) -> None:
    """Raise BadInputError if a name of the group belongs to a deployment of its own."""
    name = planned.front.deployment
    if directory.deployment(name).group.exists():
        return
    for each in (name, *(one.plan.deployment for one in planned.replicas)):
        if each in directory.with_replicas():
            raise BadInputError(
                f"{each} is a deployment of one engine",
                hint=f"another --name, or first: deckard-deploy down --name {each} --purge",
            )


def run(planned: GroupPlan, directory: StateDir, report: Reporter, *, upgrade: bool) -> None:
    """Bring replicas and front to their plans: those that do not answer first, then one at a time.

    Raises DeploymentBusyError, and the errors of `up.converge`; the replica at fault is back on its release then, and
    no other was touched.
    """
    name = planned.front.deployment
    front = directory.create(name)
    with lock_deployment(front, verb="up"):
        before = membership.read(front)
        count = len(planned.replicas)
        membership.record(front, max(count, before.count if before else 0))
        if planned.front.runtime == "docker":
            membership.share_sockets(front, count)
        group = Group(directory, name, count)
        _require_free_port(group, planned.front, report)

        def change(number: int) -> None:
            up_verb.converge(planned.replicas[number - 1], directory, report, upgrade=upgrade)

        def needs_change(number: int) -> bool:
            one = planned.replicas[number - 1]
            wish = up_verb.Wish(one.resolved.asked, upgrade)
            with open_deployment(directory, one.plan.deployment, report, also=one.plan.runtime) as context:
                decision, _ = up_verb.decide_for(context, one.plan, directory, wish)
            return decision.action in ("start", "replace")

        engine = planned.replicas[0].plan
        roll(group, report, change, needs_change, lambda: ensure_front(group, planned.front, engine, report))
        ensure_front(group, planned.front, engine, report)
        for number in range(count + 1, (before.count if before else 0) + 1):
            _remove(group, number, report)
        membership.record(front, count)
    report_exposure(planned.front, directory, report)
    report.say(boot_sentence(planned.front))


def _require_free_port(group: Group, plan: LaunchPlan, report: Reporter) -> None:
    """Raise EnvironmentUnfitError if the front cannot have its port, before an engine is started."""
    with open_deployment(group.directory, group.name, report) as context:
        seen = observe(context.runtimes)
        release = context.releases.get(seen.plan_hash) if seen.plan_hash else None
        if seen.state in ("missing", "exited") or release is None or release.load().plan.port != plan.port:
            require_free(plan.address, plan.port)


def roll(
    group: Group,
    report: Reporter,
    change: Callable[[int], None],
    needs_change: Callable[[int], bool] = lambda _: True,
    after_first: Callable[[], None] = lambda: None,
) -> None:
    """Change one replica after the other: out of the list, drained, changed, proven, and back.

    A replica that serves is taken out only while all others serve. change: returns when the replica is proven.
    Raises StartFailedError for another replica that does not answer, and the error of a change: the rest is unchanged.
    """
    serving = {number for number in group.numbers if answers(group, number).outcome is Outcome.READY}
    order = sorted(group.numbers, key=lambda number: number in serving)
    for at, number in enumerate(order):
        report.say(f"replica  {group.replica(number).name} ({at + 1} of {group.size})")
        if number in serving and needs_change(number):
            _require_others(group, number)
            drain(group, number, report)
        try:
            change(number)
        except DeployError as error:
            raise _stopped(group, error, number, untouched=order[at + 1 :]) from error.__cause__
        put_in(group, number)
        if at == 0:
            after_first()


def _stopped(group: Group, error: DeployError, number: int, *, untouched: list[int]) -> DeployError:
    """Put a replica back that serves again, and return its error with the state of the others."""
    if answers(group, number).outcome is Outcome.READY:
        put_in(group, number)
    rest = ", ".join(group.replica(each).name for each in untouched)
    outcome = f"; not touched: {rest}" if rest else ""
    error.message = f"replica {group.replica(number).name}: {error.message}{outcome}"
    error.args = (error.message,)
    return error


def _require_others(group: Group, number: int) -> None:
    """Raise StartFailedError if another replica than this one does not serve."""
    for other in group.numbers:
        if other == number:
            continue
        found = answers(group, other)
        if found.outcome is not Outcome.READY or other not in membership.members(group.front):
            name = group.replica(other).name
            left = group.replica(number).name
            raise StartFailedError(
                f"{name} does not serve ({found.detail or found.outcome}), so {left} is left alone",
                hint=f"deckard-deploy logs --name {name}",
            )


def answers(group: Group, number: int, timeout_s: float = ANSWER_S) -> Readiness:
    """Ask a replica itself for a completion."""
    release = Releases(group.directory.deployment(group.replica(number).name)).current()
    if release is None:
        return Readiness(Outcome.LOADING, "it was never ready")
    return probe(release.load(), directory=group.directory, timeout_s=timeout_s)


def put_in(group: Group, number: int) -> None:
    """Let a replica have requests from now on, at the socket of its current release."""
    current = Releases(group.directory.deployment(group.replica(number).name)).current()
    in_container = current is not None and current.load().plan.runtime == "docker"
    membership.put_in(group.front, number, in_container=in_container)


def drain(group: Group, number: int, report: Reporter) -> None:
    """Take a replica out of the list, and wait until it has answered all that it has.

    If it cannot be asked, or the user interrupts, it has requests again, and the error is raised.
    """
    membership.take_out(group.front, number)
    with ExitStack() as undo:
        undo.callback(put_in, group, number)
        _wait_until_idle(group.replica(number), report)
        undo.pop_all()


def _wait_until_idle(deployment: DeploymentRef, report: Reporter) -> None:
    began = time.monotonic()
    idle = 0
    with open_deployment(deployment.directory, deployment.name, report) as context:
        report.say(f"drain    {deployment.name}: {_connections(context)} requests to finish")
        # Twice: the engine may not have accepted the last connection yet.
        while idle < 2:
            idle = idle + 1 if _connections(context) == 0 else 0
            if time.monotonic() - began > DRAIN_S:
                report.say(
                    f"drain    {deployment.name}: {_connections(context)} requests are cut after {DRAIN_S:g} s"
                )
                return
            time.sleep(POLL_S)


def _connections(context: DeploymentContext) -> int:
    return sum(runtime.connections() for runtime in context.runtimes.values())


def ensure_front(group: Group, plan: LaunchPlan, engine: LaunchPlan, report: Reporter) -> None:
    """Start the front, or give the running one its new files, without a restart if its plan is the same.

    engine: the plan of a replica. Raises EnvironmentUnfitError, StartFailedError, TimedOutError.
    """
    with _front_context(group, plan, report) as context:
        # In this order: the second gives all files in the folder to the user of nginx.
        changed = [_write_list(group, plan, engine), ensure_gateway_files(plan, group.directory, report)]
        stored = context.releases.get(plan.hash)
        decision = decide(plan.hash, observe(context.runtimes), stored.launch() if stored else None)
        if stored and decision.action in ("nothing", "follow", "gateway"):
            changed += [has_stale_keys(plan, group.directory), renew_gateway_config(stored.load())]
            if any(changed):
                reload_gateway_keys(context, group.directory)
                report.say(f"front    {group.name} uses its new files")
            _follow(stored.load(), context.runtimes[plan.runtime], directory=group.directory)
            return
        report.say(f"front    {group.name}: {decision.cause}")
        deploy(context, *create_release(plan, context.releases))
        context.releases.prune()


def _write_list(group: Group, front: LaunchPlan, engine: LaunchPlan) -> bool:
    """Write the front's list of replicas. Return True if it was another one."""
    in_container = front.runtime == "docker"
    servers = [membership.server(number, in_container=in_container) for number in group.numbers]
    text = render_replicas([Member(server) for server in servers], engine) + "\n"
    path = private_folder(group.front.gateway) / REPLICAS
    if path.is_file() and read_regular(path) == text:
        return False
    write_atomically(path, text)
    return True


@contextmanager
def _front_context(group: Group, plan: LaunchPlan, report: Reporter) -> Iterator[DeploymentContext]:
    with open_deployment(group.directory, group.name, report, also=plan.runtime) as context:
        yield replace(context, follow=functools.partial(_follow, directory=group.directory))


def _follow(release: Release, _: Runtime, *, directory: StateDir) -> None:
    """Return when the front has answered. Raises TimedOutError."""
    deadline = time.monotonic() + FRONT_TIMEOUT_S
    while True:
        found = probe(release, directory=directory, timeout_s=ANSWER_S)
        if found.outcome is Outcome.READY:
            return
        if time.monotonic() > deadline:
            name = release.plan.deployment
            raise TimedOutError(
                f"the front of {name} does not answer: {found.detail}",
                hint=f"deckard-deploy logs --name {name} --gateway",
            )
        time.sleep(POLL_S)


def _remove(group: Group, number: int, report: Reporter) -> None:
    """Drain, stop and remove a replica that is not wanted any more."""
    drain(group, number, report)
    down_verb.stop(group.replica(number), report, purge=True)
    sockets = membership.socket_folder(group.front, number)
    if sockets.is_dir():
        remove_folder(sockets)


def down(selection: Selection, report: Reporter, *, purge: bool = False, dry_run: bool = False) -> None:
    """Stop a deployment; of a group the front first, then all replicas. Raises as `down.run`."""
    deployment = select_deployment(selection)
    group = find_group(deployment)
    if group is None:
        down_verb.run(selection, report, purge=purge, dry_run=dry_run)
        return
    members = [group.replica(number) for number in group.numbers]
    if dry_run:
        for each in (deployment, *members):
            down_verb.run(Selection(each.directory.root, each.name), report, purge=purge, dry_run=True)
        return
    with lock_deployment(group.front, verb="down"):
        if purge and stop_monitoring(deployment, report):
            report.say(f"nothing monitors {group.name} any more")
        with open_deployment(*deployment, report) as context:
            down_verb.stop_open(context, group.name, report)
        for number in group.numbers:
            membership.take_out(group.front, number)
            down_verb.stop(group.replica(number), report, purge=purge)
        if purge:
            down_verb.purge_folder(group.directory, group.name, report)


def start(selection: Selection, report: Reporter, *, dry_run: bool = False) -> str | None:
    """Start the current release again; of a group each replica and the front. Return the base URL."""
    deployment = select_deployment(selection)
    group = find_group(deployment)
    if group is None:
        return start_verb.run(selection, report, dry_run=dry_run)
    if dry_run:
        for number in group.numbers:
            start_verb.run(group.selection(number), report, dry_run=True)
        return None
    with lock_deployment(group.front, verb="start"):
        for number in group.numbers:
            start_verb.run(group.selection(number), report)
            put_in(group, number)
        return start_front(group, report).base_url


def start_front(group: Group, report: Reporter) -> LaunchPlan:
    """Ensure that the current front runs, with the list of the current replicas. Return its plan."""
    current = Releases(group.front).current()
    engine = Releases(group.directory.deployment(group.replica(1).name)).current()
    if current is None or engine is None:
        raise BadInputError(f"{group.name} was never ready", hint=f"deckard-deploy up --name {group.name}")
    plan = current.load().plan
    ensure_front(group, plan, engine.load().plan, report)
    return plan


def rollback(selection: Selection, report: Reporter, *, dry_run: bool = False) -> str | None:
    """Roll back to the previous release; of a group one replica after the other. Return the base URL."""
    deployment = select_deployment(selection)
    group = find_group(deployment)
    if group is None:
        return rollback_verb.run(selection, report, dry_run=dry_run)
    # All are asked before the first one is touched.
    for number in group.numbers:
        rollback_verb.run(group.selection(number), report, dry_run=True)
    if dry_run:
        return None

    def change(number: int) -> None:
        rollback_verb.run(group.selection(number), report)

    with lock_deployment(group.front, verb="rollback"):
        roll(group, report, change)
        return start_front(group, report).base_url


def wait(selection: Selection, report: Reporter) -> str:
    """Wait until the running release is ready; of a group until each replica and the front are. Return the base URL.

    Raises StartFailedError (one does not run, or its start failed), TimedOutError.
    """
    group = find_group(select_deployment(selection))
    if group is None:
        return wait_verb.run(selection, report)
    for number in group.numbers:
        wait_verb.run(group.selection(number), report)
    current = Releases(group.front).current()
    with open_deployment(group.directory, group.name, report) as context:
        if current is None or observe(context.runtimes).state != "running":
            raise StartFailedError(
                f"the front of {group.name} is not running", hint=f"deckard-deploy start --name {group.name}"
            )
        release = current.load()
        _follow(release, context.runtimes[release.plan.runtime], directory=group.directory)
        return release.plan.base_url
