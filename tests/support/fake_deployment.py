"""Deployments with real processes: a small server replaces `vllm serve`."""

import json
import os
import socket
import sys
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from deckard_deploy.catalog.specs import Container
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.layout import DeploymentDir, StateDir
from deckard_deploy.running.process.runtime import ProcessRuntime
from deckard_deploy.running.process.supervision import kill_tagged, server_tag, supervisor_tag
from deckard_deploy.running.releases import Launch, Release, Releases
from deckard_deploy.system.processes import ProcessIdentity, processes_with_variable
from tests.support.ports import free_port
from tests.support.waiting import eventually

USER_ENGINE = "vllm-0.19.1-host"


class FakeDeployment:
    """One deployment in a state directory of its own, with the steps of a test."""

    def __init__(self, folder: Path) -> None:
        self.state = StateDir(folder / "state")
        self.deployment = self.state.create("box")
        self.releases = Releases(self.deployment)
        self.port = free_port()
        self.program = folder / "vllm"
        script = (Path(__file__).parent / "fake_server.py").read_text().partition("\n")[2]
        self.program.write_text(f"#!{sys.executable}\n{script}")
        self.program.chmod(0o755)
        self.environment = {**os.environ, "SECRET_TOKEN": "canary"}

    def runtime(self, deployment: DeploymentDir | None = None) -> ProcessRuntime:
        return ProcessRuntime(
            deployment or self.deployment,
            program=lambda _: self.program,
            environment=self.environment,
            say=lambda _: None,
        )

    def plan(
        self, *, port: int | None = None, restart: str = "no", grace: int = 5, **environment: str
    ) -> LaunchPlan:
        return LaunchPlan(
            deployment="box",
            profile="cpu",
            model="tiny",
            engine="vllm-0.19.1-cpu",
            vllm_version="0.19.1",
            runtime="process",
            image=None,
            platform=None,
            arguments=(
                "/models/tiny",
                "--host",
                "127.0.0.1",
                "--port",
                str(port or self.port),
                "--served-model-name",
                "t",
            ),
            environment=environment,
            mounts=(),
            gpus=None,
            container=Container(restart=restart, stop_grace_period_s=grace),
            container_name="deckard-box",
            healthcheck=None,
            served_name="t",
            address="127.0.0.1",
            port=port or self.port,
            container_port=port or self.port,
            startup_timeout_s=60,
        )

    def stored(self, plan: LaunchPlan, launch_id: str = "deckard-launch-1") -> tuple[Release, Launch]:
        """Store the release of a plan. Return it, and a launch of it that is not recorded yet."""
        release = self.releases.store(
            plan.hash, {"plan.json": plan.model_dump_json(), "command.txt": launch_id}
        )
        return release.load(), self.launch(plan, launch_id)

    def launch(self, plan: LaunchPlan, launch_id: str = "deckard-launch-1") -> Launch:
        return Launch(
            launch_id=launch_id,
            started_at=datetime.now(UTC).isoformat("T", "seconds"),
            state="starting",
            runtime="process",
            base_url=plan.base_url,
        )

    def started(self, plan: LaunchPlan, launch_id: str = "deckard-launch-1") -> Release:
        """Store a release, record its launch and start it."""
        release, launch = self.stored(plan, launch_id)
        release.record(launch)
        self.runtime().start(release)
        return release

    def proven(self, plan: LaunchPlan, launch_id: str = "deckard-launch-1") -> Release:
        """Start a release, and record it as ready and current once it answers."""
        release = self.started(plan, launch_id)
        eventually(lambda: launch_id in (self.names_on(plan.port) or []))
        release.record(release.recorded_launch().model_copy(update={"state": "ready"}))
        self.releases.switch(release)
        return release

    def startable(self, plan: LaunchPlan) -> LaunchPlan:
        """Return the plan with an engine that operations can start: an environment of the user's own."""
        program = self.state.engines / USER_ENGINE / "bin" / "vllm"
        if not program.exists():
            program.parent.mkdir(parents=True)
            program.symlink_to(self.program)
        return plan.model_copy(update={"engine": USER_ENGINE})

    def names(self) -> list[str] | None:
        """Return the model names that the server lists, None without an answer."""
        return self.names_on(self.port)

    @staticmethod
    def names_on(port: int) -> list[str] | None:
        """Return the model names that the server on a port lists, None without an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as answer:
                return [model["id"] for model in json.load(answer)["data"]]
        except OSError:
            return None

    @staticmethod
    def answers(port: int) -> bool:
        """Return True if something accepts connections on the port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def processes(self) -> list[ProcessIdentity]:
        """Return the living processes of the deployment's server."""
        return processes_with_variable(server_tag(self.deployment.folder))

    def supervisors(self) -> list[ProcessIdentity]:
        """Return the living supervisors and guards."""
        return processes_with_variable(supervisor_tag(self.deployment.folder))

    def end(self) -> None:
        for mark in (supervisor_tag, server_tag):
            kill_tagged(mark(self.deployment.folder))
