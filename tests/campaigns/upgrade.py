"""Upgrades under a running deployment: python -m tests.campaigns.upgrade [COMMIT].

A deployment is started with the code of COMMIT, an earlier version, on the process runtime with a small server in place
of vLLM. Then this version works on it:

    status, up and down     the command line; `up` is operations.up.run with the plan that runs, because a choice of the
                            catalog would install vLLM as soon as `up` decides to start something
    a changed plan          running.deploy, with a release that works, and with one that fails and is rolled back
    an upgrade in place     the files of the checkout that it was started from are replaced while it runs

Prints a line for each claim. Exits with 1 if a claim is violated.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.errors import StartFailedError
from deckard_deploy.operations import up
from deckard_deploy.operations.plan import HostPlan
from deckard_deploy.operations.reporting import SilentReporter
from deckard_deploy.running.deploy import DeploymentContext, deploy
from deckard_deploy.running.process.supervision import ServerState
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.system.processes import ProcessIdentity, is_alive, send_signal
from deckard_deploy.system.unknown import Unknown
from tests.support.fake_deployment import FakeDeployment
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
EARLIER = "3c0322d"
# What a checkout needs to start a deployment, and what an upgrade in place replaces.
STATUS_CODES = (0, 3, 6, 7)
PARTS = ("deckard_deploy", "templates", "patches", "plugins", "tests")


class Claims:
    """The claims of a run, and which were violated."""

    def __init__(self) -> None:
        self.violated: list[str] = []
        self.held = 0

    def check(self, claim: str, *, holds: bool) -> None:
        """Print and count a claim."""
        print(f"{'ok      ' if holds else 'VIOLATED'} {claim}")
        sys.stdout.flush()
        if holds:
            self.held += 1
        else:
            self.violated.append(claim)


class Lines(SilentReporter):
    """A reporter that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep the line."""
        self.lines.append(line)


@dataclass(frozen=True)
class Running:
    """A deployment that an earlier version has started, seen by this version."""

    fake: FakeDeployment
    release: Release
    launch_id: str
    state: ServerState

    def state_now(self) -> ServerState:
        """Return the state that the supervisor has written last."""
        return ServerState.model_validate_json(self.fake.deployment.process_state.read_text())

    def is_unchanged(self) -> bool:
        """Return True if supervisor, server and launch are those that the earlier version has started."""
        return (
            self.state_now() == self.state
            and is_alive(self.state.supervisor)
            and self.state.launch_id == self.launch_id
        )

    def runs(self) -> list[ProcessIdentity]:
        """Return every living process of the deployment."""
        return [*self.fake.processes(), *self.fake.supervisors()]

    def context(self) -> DeploymentContext:
        return DeploymentContext(
            releases=self.fake.releases,
            runtimes={"process": self.fake.runtime()},
            follow=follow,
            say=lambda _: None,
        )


def follow(release: Release, runtime: Runtime) -> None:
    """Return when the release's server lists its models. Raises StartFailedError when it ends."""

    def settled() -> bool:
        if runtime.observe().state == "exited":
            raise StartFailedError("the server ended")
        return FakeDeployment.names_on(release.plan.port) is not None

    eventually(settled)


def checkout(commit: str, folder: Path) -> Path:
    """Write the files of a commit into a folder. Raises CalledProcessError for an unknown one."""
    folder.mkdir()
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", commit, "--", *PARTS], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def python(source: Path, *arguments: str | Path, codes: tuple[int, ...] = (0,)) -> str:
    """Run a Python with the code of a checkout. Return its output. Raises RuntimeError with its message."""
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in codes:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def started_with(source: Path, folder: Path) -> Iterator[Running]:
    """Start a deployment with the code of a checkout; end it after the context."""
    folder.mkdir()
    fake = FakeDeployment(folder)
    # An earlier version writes a server of its own to the old place.
    fake.program = fake.program.rename(folder / "server")
    try:
        output = python(source, ROOT / "tests/support/start_older.py", folder, fake.program)
        started = json.loads(output)
        fake.port = started["port"]
        release = fake.releases.current()
        assert release is not None
        state = ServerState.model_validate_json(fake.deployment.process_state.read_text())
        yield Running(fake, release.load(), started["launch"], state)
    finally:
        fake.end()


def status(source: Path, running: Running) -> dict[str, Any]:
    """Return what `status --json` of a checkout says."""
    output = python(
        source, "-m", "deckard_deploy", "status", *selection(running), "--json", codes=STATUS_CODES
    )
    found: dict[str, Any] = json.loads(output)
    return found


def selection(running: Running) -> tuple[str, ...]:
    return ("--name", "box", "--state-dir", str(running.fake.state.root))


def run_up(running: Running) -> list[str]:
    """Run `up` of this version with the plan that runs. Return its lines."""
    resolved = resolve(Deployment(), profile=library.profile("cpu"))
    report = Lines()
    up.run(HostPlan(resolved, running.release.plan, Unknown("not planned here")), running.fake.state, report)
    return report.lines


def check_status(running: Running, claims: Claims) -> None:
    """`status` recognizes it."""
    found = status(ROOT, running)
    claims.check(
        "status: it is running, and answers",
        holds=found["state"] == "running" and found["answers"] == "ready",
    )
    claims.check("status: the same plan", holds=found["plan"] == running.release.plan_hash)
    claims.check("status: the same instance", holds=found["instance"] == str(running.state.supervisor))
    claims.check("status restarts nothing", holds=running.is_unchanged())


def check_up(running: Running, claims: Claims) -> None:
    """`up` finds nothing to do."""
    plan = running.release.plan
    fresh = running.fake.plan(port=plan.port, restart="on-failure:3")
    claims.check(
        "the same plan has the same hash in this version", holds=fresh.hash == running.release.plan_hash
    )
    decision, _ = up.decide_for(running.context(), plan, running.fake.state)
    claims.check(f"up decides: {decision.action} ({decision.cause})", holds=decision.action == "nothing")
    if decision.action == "nothing":
        lines = run_up(running)
        claims.check(
            "up says that there is nothing to do", holds=any("nothing to do" in line for line in lines)
        )
    claims.check("up restarts nothing", holds=running.is_unchanged())


def check_down(running: Running, claims: Claims) -> None:
    """`down` stops it."""
    python(ROOT, "-m", "deckard_deploy", "down", *selection(running))
    claims.check("down ends every process", holds=running.runs() == [])
    launch = running.release.launch()
    claims.check("down records it as stopped", holds=launch is not None and launch.state == "stopped")


def check_changed_plan(running: Running, claims: Claims) -> None:
    """A release of this version replaces it, and a failed one brings it back."""
    fake = running.fake
    context = running.context()
    broken = fake.plan(port=fake.port, FAKE_MODE="crash")
    try:
        deploy(context, *fake.stored(broken, "deckard-launch-broken"))
        outcome = "it was deployed"
    except StartFailedError as error:
        outcome = error.message
    claims.check("a plan that fails is rolled back", holds=outcome.endswith("is running again"))
    seen = context.runtimes["process"].observe()
    claims.check(
        "the release of the earlier version runs again", holds=seen.plan_hash == running.release.plan_hash
    )
    claims.check("it answers", holds=fake.names() is not None)
    changed = fake.plan(port=fake.port, OTHER="1")
    deploy(context, *fake.stored(changed, "deckard-launch-changed"))
    seen = context.runtimes["process"].observe()
    claims.check(
        "a changed plan replaces it", holds=seen.plan_hash == changed.hash and fake.names() is not None
    )


def check_in_place(running: Running, source: Path, claims: Claims) -> None:
    """The supervisor of the earlier version goes on with the files of this version in place of its own."""
    for part in PARTS:
        shutil.rmtree(source / part, ignore_errors=True)
        if (ROOT / part).exists():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    server = running.state.server
    assert server is not None
    send_signal(server, signal.SIGKILL)

    def restarted() -> bool:
        state = running.state_now()
        return state.state == "running" and state.restart_count == 1

    eventually(restarted)
    eventually(lambda: running.fake.names() is not None)
    state = running.state_now()
    claims.check(
        "in place: the same supervisor has restarted the engine",
        holds=(
            state.supervisor == running.state.supervisor
            and is_alive(state.supervisor)
            and state.server != server
        ),
    )
    found = status(source, running)
    claims.check(
        "in place: status sees the restart", holds=found["state"] == "running" and found["restarts"] == 1
    )
    decision, _ = up.decide_for(running.context(), running.release.plan, running.fake.state)
    claims.check(
        f"in place: up decides: {decision.action} ({decision.cause})", holds=decision.action == "follow"
    )
    run_up(running)
    claims.check(
        "in place: up restarts nothing", holds=running.state_now() == state and is_alive(state.supervisor)
    )
    send_signal(state.supervisor, signal.SIGKILL)
    eventually(lambda: running.runs() == [])
    claims.check(
        "in place: the guard ends the engine when the supervisor is killed", holds=running.runs() == []
    )
    seen = status(source, running)["state"]
    claims.check("in place: status sees the end", holds=seen == "exited")


def run(commit: str) -> Claims:
    """Check all claims for an upgrade from a commit."""
    claims = Claims()
    with tempfile.TemporaryDirectory(prefix="upgrade-") as name:
        folder = Path(name)
        earlier = checkout(commit, folder / "earlier")
        with started_with(earlier, folder / "beside") as running:
            check_status(running, claims)
            check_up(running, claims)
            check_down(running, claims)
        with started_with(earlier, folder / "changed") as running:
            check_changed_plan(running, claims)
            check_down(running, claims)
        with started_with(earlier, folder / "in-place") as running:
            check_in_place(running, earlier, claims)
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit", metavar="COMMIT", nargs="?", default=EARLIER)
    claims = run(parser.parse_args().commit)
    print(f"{claims.held} claims hold, {len(claims.violated)} are violated")
    sys.exit(bool(claims.violated))


if __name__ == "__main__":
    main()
