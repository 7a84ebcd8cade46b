"""Replicas and their front with real processes: the real nginx, and a small server that replaces `vllm serve`."""

import json
import secrets
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Self

import requests

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.specs import Container, Deployment
from deckard_deploy.errors import DeploymentBusyError
from deckard_deploy.operations import replicas
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.plan import GroupPlan, HostPlan
from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.planning.replicas import as_front
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.running import group as membership
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.process.supervision import ServerState, kill_tagged, server_tag, supervisor_tag
from deckard_deploy.system.http import session
from deckard_deploy.system.processes import ProcessIdentity
from deckard_deploy.system.unknown import Unknown
from tests.support.fake_deployment import USER_ENGINE
from tests.support.ports import free_port
from tests.support.recording_reporter import RecordingReporter
from tests.support.waiting import eventually

NAME, SERVED = "box", "t"
TOKENS = 4  # of an answer; this tool itself asks for more (MAX_TOKENS of startup/readiness.py and startup/damage.py)


class FakeGroup:
    """A group in a state directory of its own. heard: the texts that the engines were asked, by one line each."""

    name = NAME

    def __init__(self, folder: Path, size: int, *, delay_s: float = 0.05) -> None:
        self.state = StateDir(folder / "s")
        self.size, self.delay_s = size, delay_s
        self.port, self.ports = free_port(), [free_port() for _ in range(size)]
        self.heard_file = folder / "heard"
        program = self.state.engines / USER_ENGINE / "bin" / "vllm"
        program.parent.mkdir(parents=True)
        script = (Path(__file__).parent / "fake_server.py").read_text().partition("\n")[2]
        program.write_text(f"#!{sys.executable}\n{script}")
        program.chmod(0o755)
        self.resolved: Resolved = resolve(
            Deployment(name=NAME, replicas=size), profile=library.profile("cpu")
        )
        gemma4.write(self.state.models / self.resolved.model.name)
        self.report = RecordingReporter()

    def _plan(self, name: str, port: int, environment: dict[str, str]) -> LaunchPlan:
        gateway = Gateway(
            image=None, program="/usr/sbin/nginx", user=None,
            folder=str(self.state.deployment(name).gateway), exposed=False, tls=False, certificate=None,
            certificate_key=None,
        )  # fmt: skip
        return LaunchPlan(
            deployment=name, profile="cpu", model=self.resolved.model.name, engine=USER_ENGINE, vllm_version="0.19.1",
            runtime="process", image=None, platform=None,
            arguments=("/models/tiny", "--uds", "vllm.sock", "--served-model-name", SERVED),
            environment=environment, mounts=(), gpus=None,
            container=Container(restart="on-failure:5", stop_grace_period_s=5), container_name=f"deckard-{name}",
            healthcheck=None, gateway=gateway, served_name=SERVED, address="127.0.0.1", port=port,
            container_port=port, startup_timeout_s=60, role="replica",
        )  # fmt: skip

    def planned(self, *, size: int | None = None, **environment: str) -> GroupPlan:
        """Return the plan of the group. environment: of each engine."""
        variables = {
            "FAKE_HEARD": str(self.heard_file),
            "FAKE_DELAY_S": str(self.delay_s),
            "FAKE_METRICS": "1",
            **environment,
        }
        asked = replace(self.resolved, asked=json.dumps(variables))
        members = []
        for number in range(1, (size or self.size) + 1):
            plan = self._plan(f"{NAME}-{number}", self.ports[number - 1], variables)
            members.append(HostPlan(asked, plan, Unknown("not planned")))
        return GroupPlan(self.resolved, as_front(self._plan(NAME, self.port, {})), tuple(members))

    def run(self, planned: GroupPlan) -> None:
        replicas.run(planned, self.state, self.report, upgrade=False)

    def group(self) -> replicas.Group:
        return replicas.Group(self.state, self.name, self.size)

    def members(self) -> set[int]:
        return membership.members(self.state.deployment(self.name))

    def server(self, number: int) -> ProcessIdentity:
        """Return the engine's process of a replica."""
        state = ServerState.model_validate_json(
            self.state.deployment(f"{NAME}-{number}").process_state.read_text()
        )
        assert state.server is not None
        return state.server

    def heard(self) -> Counter[str]:
        return Counter(self.heard_file.read_text().split("\n")) if self.heard_file.exists() else Counter()

    def stop(self) -> None:
        """Stop all, as soon as a watch does not change it, and end the watch by that."""
        assert eventually(self._stopped)

    def _stopped(self) -> bool:
        try:
            replicas.down(Selection(self.state.root, self.name), self.report)
        except DeploymentBusyError:
            return False
        return True

    def end(self) -> None:
        for name in (NAME, *(f"{NAME}-{number}" for number in range(1, self.size + 1))):
            for mark in (supervisor_tag, server_tag):
                kill_tagged(mark(self.state.deployment(name).folder))


class Clients:
    """Clients that ask the front without a pause, each question with a text of its own."""

    def __init__(self, group: FakeGroup, count: int, *, keep: bool = True) -> None:
        """keep: each client keeps its connection. nginx closes those that are idle when it reads its files again."""
        self._headers = {} if keep else {"Connection": "close"}
        self.answers: dict[str, int] = {}
        self._run = secrets.token_hex(4)
        self._stop = threading.Event()
        self._group = group
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(count)]
        self.fewest = group.size

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def failed(self) -> dict[str, int]:
        """Return the status of each question that failed; 0: the connection broke."""
        return {text: status for text, status in self.answers.items() if status != 200}

    def _ask(self, client: int) -> None:
        plan = self._group.planned().front
        with session(credentials(plan, self._group.state)) as http:
            number = 0
            while not self._stop.is_set():
                text = f"run {self._run} client {client} question {number}"
                question = {
                    "messages": [{"role": "user", "content": text}],
                    "model": plan.served_name,
                    "max_tokens": TOKENS,
                }
                try:
                    status = http.post(
                        f"{plan.base_url}/chat/completions", json=question, headers=self._headers, timeout=60
                    ).status_code
                except requests.RequestException:
                    status = 0
                self.answers[text] = status
                self.fewest = min(self.fewest, len(self._group.members()))
                number += 1
