"""vLLM in a container that docker compose starts and stops, and that the engine's API is asked about."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.running.docker.client import DockerEngine
from deckard_deploy.running.docker.log import DockerLog
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.running.releases import COMPOSE, Release
from deckard_deploy.running.runtime import MISSING, Instance, Observation, State
from deckard_deploy.system.commands import Say
from deckard_deploy.system.ports import require_free
from deckard_deploy.system.text import LineSplitter

PLAN_LABEL, LAUNCH_LABEL, DEPLOYMENT_LABEL = "deckard.plan", "deckard.launch", "deckard.deployment"
GATEWAY_LABEL = "deckard.gateway"  # on the gateway, and on an engine that stands behind one
# Set by compose on everything it makes (compose pkg/api/labels.go).
_PROJECT_LABEL, _FOLDER_LABEL = "com.docker.compose.project", "com.docker.compose.project.working_dir"
_UP_TIMEOUT_S, _DOWN_TIMEOUT_S = 300.0, 300.0


class DockerRuntime:
    """One deployment's container. Nothing is contacted before the first question."""

    def __init__(self, deployment: DeploymentDir, *, environment: Mapping[str, str], say: Say) -> None:
        self.engine = DockerEngine(environment=environment, say=say)
        self._deployment = deployment
        # compose allows no dot in a project's name; whose a project is stands in its labels.
        self._project = f"deckard-{deployment.name.replace('.', '_')}"
        self._log: DockerLog | None = None

    def start(self, release: Release) -> Instance:
        """Create and start the release's containers; the image has to be here.

        Raises EnvironmentUnfitError (port, image, GPU runtime, daemon, a stranger's container in the way),
        IntegrityError (the compose file is not the release's).
        """
        self._refuse_strangers()
        plan = release.plan()
        require_free(plan.address, plan.port)
        self._end_log()
        arguments = ("up", "--detach", "--no-build", "--pull", "never", "--remove-orphans")
        release.text(COMPOSE)
        self.engine.compose(self._project, release.folder / COMPOSE, arguments, timeout_s=_UP_TIMEOUT_S)
        seen = self.observe()
        if seen.plan_hash != release.plan_hash or seen.instance_id is None or seen.launch_id is None:
            raise IntegrityError(
                f"{release.folder / COMPOSE} started plan {seen.plan_hash}, not {release.plan_hash}",
                hint=f"remove the release and bring it up again: rm -r {release.folder}",
            )
        return Instance(seen.instance_id, seen.launch_id)

    def stop(self) -> None:
        """Stop and remove the project's containers and networks. Raises EnvironmentUnfitError."""
        self._end_log()
        if not self._containers(all_of_project=True) and not self._networks():
            return
        self._refuse_strangers()
        self.engine.compose(self._project, None, ("down", "--remove-orphans"), timeout_s=_DOWN_TIMEOUT_S)
        left = [_name(container) for container in self._containers(all_of_project=True)] + self._deserted()
        if left:
            raise EnvironmentUnfitError(
                f"docker compose down left {', '.join(left)}", hint=f"docker rm -f {left[0]}"
            )

    def observe(self) -> Observation:
        """What the engine says of our container. Raises EnvironmentUnfitError."""
        from docker.errors import NotFound  # noqa: PLC0415  half a second

        ours = self._containers()
        if not ours:
            return MISSING
        try:
            with self.engine.asking():
                seen = [
                    _observation(self.engine.api.inspect_container(container["Id"])) for container in ours
                ]
            if len(seen) > 1:
                return Observation(state="running")  # nobody's launch: to be replaced
            return self._with_gateway(seen[0]) if GATEWAY_LABEL in ours[0]["Labels"] else seen[0]
        except NotFound:
            return MISSING  # removed between two questions

    def reload(self) -> None:
        """Have the gateway read its files again: nginx takes up new connections with them, and ends old ones well."""
        from docker.errors import NotFound  # noqa: PLC0415  half a second

        for container in self._gateways():
            if container["State"] == "running":
                # Gone since: it reads them when it starts.
                with contextlib.suppress(NotFound), self.engine.asking():
                    self.engine.api.kill(container["Id"], "HUP")

    def poll_lines(self, *, last: int | None = None) -> list[str]:
        """New lines of the container's log."""
        ours = self._containers()
        if ours and (self._log is None or self._log.container != ours[0]["Id"]):
            self._end_log()
            self._log = DockerLog(self.engine, ours[0]["Id"], last=last)
        return self._log.poll() if self._log else []

    def tail(self, count: int) -> list[str]:
        """The last lines of the container's log."""
        from docker.errors import NotFound  # noqa: PLC0415  half a second

        ours = self._containers()
        if not ours or count <= 0:
            return []
        try:
            with self.engine.asking():
                data = self.engine.api.logs(ours[0]["Id"], tail=count)
        except NotFound:
            return []
        return LineSplitter().feed(data if data.endswith(b"\n") else data + b"\n")

    def close(self) -> None:
        """Close the log and the connections to the engine; the container goes on."""
        self._end_log()
        self.engine.close()

    def _end_log(self) -> None:
        if self._log:
            self._log.close()
        self._log = None

    def _with_gateway(self, engine: Observation) -> Observation:
        """An engine whose gateway does not run cannot be reached: the gateway's state is the deployment's."""
        if engine.state != "running":
            return engine
        gateways = self._gateways()
        if not gateways:
            return replace(engine, state="exited")
        with self.engine.asking():
            gateway = _observation(self.engine.api.inspect_container(gateways[0]["Id"]))
        if gateway.state == "running":
            return engine
        return replace(engine, state=gateway.state, exit_code=gateway.exit_code)

    def _gateways(self) -> list[dict[str, Any]]:
        ours = self._containers(all_of_project=True)
        return [
            each for each in ours if GATEWAY_LABEL in each["Labels"] and LAUNCH_LABEL not in each["Labels"]
        ]

    def _containers(self, *, all_of_project: bool = False) -> list[dict[str, Any]]:
        """Containers, newest first: the server's own, or all of the project whoever started them."""
        labels = [f"{_PROJECT_LABEL}={self._project}"]
        if not all_of_project:
            labels += [f"{DEPLOYMENT_LABEL}={self._deployment.name}", LAUNCH_LABEL]
        with self.engine.asking():
            found = self.engine.api.containers(all=True, filters={"label": labels})
        return [container for container in found if all_of_project or self._is_ours(container)]

    def _networks(self) -> list[str]:
        with self.engine.asking():
            found = self.engine.api.networks(filters={"label": f"{_PROJECT_LABEL}={self._project}"})
        return [network["Name"] for network in found]

    def _deserted(self) -> list[str]:
        """Networks that nobody is in: compose leaves one that another project, like monitoring, still uses."""
        from docker.errors import NotFound  # noqa: PLC0415  half a second

        deserted = []
        for name in self._networks():
            with contextlib.suppress(NotFound), self.engine.asking():  # gone since
                if not self.engine.api.inspect_network(name)["Containers"]:
                    deserted.append(name)
        return deserted

    def _is_ours(self, container: dict[str, Any]) -> bool:
        folder = str(container["Labels"].get(_FOLDER_LABEL, ""))
        return folder.startswith(f"{self._deployment.releases}/")

    def _refuse_strangers(self) -> None:
        """Another state directory, or a person, may have a project of this name; its containers are not ours."""
        for container in self._containers(all_of_project=True):
            if not self._is_ours(container):  # guard: F40
                raise EnvironmentUnfitError(
                    f"container {_name(container)} of project {self._project} was not started from "
                    f"{self._deployment.folder} but from {container['Labels'].get(_FOLDER_LABEL, 'somewhere else')}",
                    hint=f"stop it there, or: docker rm -f {_name(container)}",
                )


def _observation(inspected: dict[str, Any]) -> Observation:
    state, labels = inspected["State"], inspected["Config"]["Labels"]
    name: State = "restarting" if state["Restarting"] else "running" if state["Running"] else "exited"
    return Observation(
        state=name,
        exit_code=None if name == "running" else state["ExitCode"],
        oom_killed=state["OOMKilled"],  # guard: F24
        restart_count=inspected["RestartCount"],
        instance_id=inspected["Id"],
        plan_hash=labels.get(PLAN_LABEL),
        launch_id=labels.get(LAUNCH_LABEL),
        image_id=inspected["Image"],
    )


def _name(container: dict[str, Any]) -> str:
    return str(container["Names"][0]).removeprefix("/") if container["Names"] else str(container["Id"])[:12]
