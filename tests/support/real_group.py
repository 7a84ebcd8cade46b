"""Replicas of the real engine, planned as `up` plans them, and the engines' own counts of what they have answered."""

import contextlib
import json
import threading
from dataclasses import replace
from pathlib import Path

from deckard_deploy.errors import DeployError
from deckard_deploy.measuring.metrics import STARTED, metrics_url, scrape
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import GroupPlan, plan_group
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Releases
from tests.support.fake_group import NAME, TOKENS, FakeGroup
from tests.support.ports import free_port
from tests.support.recording_reporter import RecordingReporter

# A histogram with the bounds 1, 2, 5, 10 …: one interval holds the questions of clients, and none of this tool's.
ASKED_FOR = "vllm:request_params_max_tokens_bucket"
BOUNDS = ("2.0", "5.0")
assert float(BOUNDS[0]) < TOKENS <= float(BOUNDS[1])
POLL_S = 0.3


class RealGroup(FakeGroup):
    """A group of a process engine of the catalog. engines: the folder in which it is installed."""

    def __init__(self, folder: Path, size: int, *, engine: str, engines: Path) -> None:
        self.state, self.size = StateDir(folder / "s"), size
        self.state.root.mkdir(mode=0o700)
        self.state.engines.symlink_to(engines)
        self.report = RecordingReporter()
        settings = (
            f"name={NAME}", f"publish.port={free_port()}", f"engine={engine}", f"replicas={size}", "drafter=none",
        )  # fmt: skip
        self.resolved = resolve_choice(Choice(profile="cpu", settings=settings), self.report, self.state)
        self._planned = plan_group(self.resolved, self.state)
        self._counts: dict[tuple[int, float], float] = {}
        threading.Thread(target=self._count, daemon=True).start()

    def planned(self, *, size: int | None = None, **environment: str) -> GroupPlan:  # noqa: ARG002  the campaign has one
        """Return the plan of the group. FAKE_MODE: the engine refuses its command line."""
        members = []
        for one in self._planned.replicas:
            changes: dict[str, object] = {"environment": {**one.plan.environment, **environment}}
            if environment.get("FAKE_MODE"):
                changes["arguments"] = (*one.plan.arguments, "--no-such-option")
            resolved = replace(one.resolved, asked=json.dumps(environment))
            members.append(one._replace(plan=one.plan.model_copy(update=changes), resolved=resolved))
        return self._planned._replace(replicas=tuple(members))

    def generated(self) -> float:
        """Return the answers to clients by all engines so far, by their own counts."""
        return sum(self._counts.values())

    def _count(self) -> None:
        """Read the counts again and again: those of an engine end with it. The thread's body."""
        pause = threading.Event()
        while not pause.wait(POLL_S):
            for number in self.group().numbers:
                with contextlib.suppress(DeployError, FileNotFoundError):
                    release = Releases(self.state.deployment(f"{NAME}-{number}")).current()
                    if release:
                        self._note(number, release.load().plan)

    def _note(self, number: int, plan: LaunchPlan) -> None:
        page = scrape(metrics_url(plan.base_url), credentials(plan, self.state))
        counts = {dict(labels)["le"]: value for labels, value in page.samples.get(ASKED_FOR, {}).items()}
        if not counts:
            return
        self._counts[number, page.value(STARTED) or 0.0] = counts[BOUNDS[1]] - counts[BOUNDS[0]]
