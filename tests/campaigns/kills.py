"""Kill -9 what changes a deployment, thousands of times, and look at what is left.

    write   a process that stores, launches, switches and prunes releases, killed at random moments: every file at a
            final name must be whole, every link must lead to a release, the lock must be free
    up      an `up` (first start, replacement, failed replacement) or a `down`, killed just before one of the calls by
            which it changes something: the next `up` must converge to one server, and nothing half may be left

The server is the small one of the unit tests. Everything happens in a temporary folder. Exit status 1 on a violation.

    python -m tests.campaigns.kills write --kills 5000 --seed 7
    python -m tests.campaigns.kills up --kills 500 --seed 7
"""

import argparse
import contextlib
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from deckard_deploy.errors import DeployError, StartFailedError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running import releases
from deckard_deploy.running.deploy import DeploymentContext, decide, deploy, observe, resume, take_down
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.system import files
from tests.support.fake_deployment import FakeDeployment
from tests.support.waiting import eventually

# Events of sys.addaudithook for calls that change something outside of the process.
CHANGES = {
    "fcntl.flock", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
    "shutil.rmtree", "subprocess.Popen", "tempfile.mkdtemp", "tempfile.mkstemp",
}  # fmt: skip


def main() -> int:
    """Parse, run, print the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("write", "up"))
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--careless", action="store_true", help="write files in place: the violations must be noticed"
    )
    options = parser.parse_args()
    if options.careless:
        files.write_atomically = releases.write_atomically = _write_in_place  # type: ignore[attr-defined]
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        fake = FakeDeployment(Path(folder))
        try:
            violations = list((_writes if options.what == "write" else _ups)(fake, options.kills, rng))
        finally:
            fake.end()
    for violation in violations:
        print(violation)
    print(f"{options.kills} kills, {len(violations)} violations")
    return 1 if violations else 0


def _writes(fake: FakeDeployment, kills: int, rng: random.Random) -> Iterator[str]:
    plans = [fake.plan(PADDING=str(number) * 200_000) for number in range(5)]
    for number in range(kills):
        victim = _forked(lambda: _write_for_ever(fake, plans))
        time.sleep(rng.uniform(0, 0.1))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        try:
            _check_files(fake)
        except (DeployError, AssertionError) as error:
            yield f"kill {number}: {error}"
            for release in fake.deployment.releases.iterdir():
                files.remove_folder(release)


def _write_for_ever(fake: FakeDeployment, plans: list[LaunchPlan]) -> None:
    round_ = int.from_bytes(os.urandom(4))  # other words than the victim before wrote
    while True:
        for plan in plans:
            with lock_deployment(fake.deployment, verb="up"):
                fake.releases.clear_leftovers()
                text = f"{round_}\n" * 50_000
                contents = {
                    "plan.json": plan.model_dump_json(),
                    "patches/a.py": text + hashlib.sha256(text.encode()).hexdigest(),
                }
                release = fake.releases.store(plan.hash, contents)
                release.record(fake.launch(plan))
                fake.releases.switch(release)
                fake.releases.prune()
        round_ += 1


def _check_files(fake: FakeDeployment) -> None:
    for release in fake.releases.all():
        release.load()
        release.launch()
        text = release.text("patches/a.py")
        _require(
            hashlib.sha256(text[:-64].encode()).hexdigest() == text[-64:],
            f"{release.folder}/patches/a.py is half",
        )
    fake.releases.current()
    fake.releases.previous()
    with lock_deployment(fake.deployment, verb="check"):
        fake.releases.clear_leftovers()
    left = list(fake.state.root.rglob(".tmp-*"))
    _require(not left, f"left over: {left}")


def _ups(fake: FakeDeployment, kills: int, rng: random.Random) -> Iterator[str]:
    good, better, bad = fake.plan(), fake.plan(FAKE_NEW="1"), fake.plan(FAKE_MODE="crash")

    def failing() -> None:
        with contextlib.suppress(StartFailedError):
            up(fake, bad)

    # name -> what runs before, what is killed
    scenes: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "first": (lambda: down(fake), lambda: up(fake, good)),
        "replace": (lambda: up(fake, good), lambda: up(fake, better)),
        "roll back": (lambda: up(fake, good), failing),
        "down": (lambda: up(fake, good), lambda: down(fake)),
    }
    changes: dict[str, int] = {}
    for number in range(kills):
        name = list(scenes)[number % len(scenes)]
        before, victim = scenes[name]
        before()
        if name not in changes:
            changes[name] = _changes_of(victim)
            before()
        at = rng.randrange(changes[name])
        pid = _forked(victim, killed_at=at)
        os.waitpid(pid, 0)
        try:
            up(fake, good)
            _check_one_server(fake, good)
        except (DeployError, AssertionError) as error:
            yield f"kill {number} ({name}, before change {at} of {changes[name]}): {error}"
            down(fake)
    down(fake)
    if fake.processes() or fake.supervisors():
        yield f"processes left after down: {fake.processes() + fake.supervisors()}"


def up(fake: FakeDeployment, plan: LaunchPlan) -> None:
    """Do the work of the verb without its messages."""
    with lock_deployment(fake.deployment, verb="up"):
        fake.releases.clear_leftovers()
        context = _context(fake)
        release = fake.releases.get(plan.hash)
        decision = decide(plan.hash, observe(context.runtimes), release.launch() if release else None)
        if decision.action == "follow" and release:
            resume(context, release)
        elif decision.action != "nothing":
            deploy(context, *fake.stored(plan, f"deckard-launch-{os.urandom(6).hex()}"))
        fake.releases.prune()


def down(fake: FakeDeployment) -> None:
    """The same for `down`."""
    with lock_deployment(fake.deployment, verb="down"):
        take_down(_context(fake))


def _context(fake: FakeDeployment) -> DeploymentContext:
    return DeploymentContext(
        releases=fake.releases, runtimes={"process": fake.runtime()}, follow=_proven, say=lambda _: None
    )


def _proven(release: Release, runtime: Runtime) -> None:
    plan, launch = release.plan, release.recorded_launch()

    def listed() -> bool:
        if runtime.observe().state != "running":
            raise StartFailedError("the engine stopped")
        return launch.launch_id in (FakeDeployment.names_on(plan.port) or [])

    eventually(listed)


def _check_one_server(fake: FakeDeployment, plan: LaunchPlan) -> None:
    release = fake.releases.current()
    if release is None:
        raise AssertionError("there is no current release")
    _require(release.plan_hash == plan.hash, f"{release.plan_hash} is current, {plan.hash} was brought up")
    launch = release.recorded_launch()
    _require(launch.state == "ready", f"the launch is {launch.state}")
    _require(
        fake.names() == ["t", launch.launch_id],
        f"{fake.names()} are served, {launch.launch_id} was started",
    )
    _require(len(fake.processes()) == 2, f"not one server and its worker: {fake.processes()}")
    _require(len(fake.supervisors()) == 2, f"not one supervisor and its guard: {fake.supervisors()}")
    left = list(fake.state.root.rglob(".tmp-*"))
    _require(not left, f"left over: {left}")


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001  what is asserted
    if not holds:
        raise AssertionError(otherwise)


def _changes_of(act: Callable[[], object]) -> int:
    """Return the number of changes that an undisturbed run makes."""
    read_end, write_end = os.pipe()
    counted = 0

    def counting() -> None:
        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal counted
            counted += _is_change(event, arguments)

        sys.addaudithook(count)
        act()
        os.write(write_end, str(counted).encode())

    os.waitpid(_forked(counting), 0)
    os.close(write_end)
    with os.fdopen(read_end) as told:
        return int(told.read())


def _forked(act: Callable[[], object], killed_at: int | None = None) -> int:
    """A child that does it, and kills itself just before its change number `killed_at`."""
    pid = os.fork()
    if pid:
        return pid
    left = killed_at

    def die(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if left is not None and _is_change(event, arguments):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(die)
    try:
        act()
    finally:
        os._exit(0)


def _is_change(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    return event in CHANGES


def _write_in_place(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    data = content.encode() if isinstance(content, str) else content
    with path.open("wb", buffering=0) as file:
        file.write(data[: len(data) // 2])
        time.sleep(0.005)  # long enough for a kill to find it half, on a fast machine too
        file.write(data[len(data) // 2 :])
    path.chmod(mode)


if __name__ == "__main__":
    sys.exit(main())
