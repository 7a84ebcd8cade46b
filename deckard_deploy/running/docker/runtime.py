"""The docker runtime: compose starts and stops vLLM's container, and docker's API reports its state."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError, StartFailedError
from deckard_deploy.planning.gateway import REPLICAS_FOLDER, SOCKET
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.docker import images
from deckard_deploy.running.docker.client import DockerClient
from deckard_deploy.running.docker.log import DockerLog
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.running.releases import COMPOSE, ENDPOINT, RENDERED_FOLDER, Release, adopted_folders
from deckard_deploy.running.runtime import (
    MISSING,
    DiskNeed,
    Instance,
    Observation,
    PythonCommand,
    State,
    VllmFiles,
)
from deckard_deploy.system.byte_lines import ByteLines
from deckard_deploy.system.commands import Say
from deckard_deploy.system.files import write_atomically
from deckard_deploy.system.ports import require_free
from deckard_deploy.system.text import clean_lines
from deckard_deploy.system.unknown import Unknown

PLAN_LABEL, LAUNCH_LABEL, DEPLOYMENT_LABEL = "deckard.plan", "deckard.launch", "deckard.deployment"
GATEWAY_LABEL = "deckard.gateway"  # on the gateway, and on an engine behind a gateway
# Compose sets these on everything that it creates (compose pkg/api/labels.go).
_PROJECT_LABEL, _FOLDER_LABEL = "com.docker.compose.project", "com.docker.compose.project.working_dir"
_SERVICE_LABEL, _GATEWAY_SERVICE = "com.docker.compose.service", "gateway"
_UP_TIMEOUT_S, _DOWN_TIMEOUT_S = 300.0, 300.0


class DockerRuntime:
    """The container of one deployment. Connects to docker at the first question."""

    def __init__(self, deployment: DeploymentDir, *, environment: Mapping[str, str], say: Say) -> None:
        self.client = DockerClient(environment=environment, say=say)
        self._deployment = deployment
        # compose allows no dot in a project's name. The project's labels name its deployment.
        self._project = f"deckard-{deployment.name.replace('.', '_')}"
        self._log: DockerLog | None = None
        self._accepted: set[str] = set()

    def accept(self, folder: str) -> None:
        """Regard a stack that a person has started from `folder` as this deployment's, before it is recorded."""
        self._accepted.add(folder)

    @property
    def endpoint(self) -> str:
        """The docker daemon's socket. Raises EnvironmentUnfitError."""
        return self.client.endpoint

    def start(self, release: Release) -> Instance:
        """Create and start the release's containers. The image must be here.

        Raises EnvironmentUnfitError (port, image, GPU runtime, daemon, a foreign container of the same
        project), IntegrityError (the compose file is not the release's).
        """
        self.refuse_foreign()
        self.require_supported()
        write_atomically(release.folder / ENDPOINT, f"{self.client.endpoint}\n")
        plan = release.plan
        require_free(plan.address, plan.port)
        self._end_log()
        arguments = ("up", "--detach", "--no-build", "--pull", "never", "--remove-orphans")
        release.text(COMPOSE)
        self.client.compose(
            self._project,
            release.folder / COMPOSE,
            arguments,
            timeout_s=_UP_TIMEOUT_S,
            folder=release.adopted_from(),
        )
        observed = self.observe()
        if (
            observed.plan_hash != release.plan_hash
            or observed.instance_id is None
            or observed.launch_id is None
        ):
            raise IntegrityError(
                f"{release.folder / COMPOSE} started plan {observed.plan_hash}, not {release.plan_hash}",
                hint=f"remove the release and bring it up again: rm -r {release.folder}",
            )
        return Instance(observed.instance_id, observed.launch_id)

    def stop(self) -> None:
        """Stop and remove the project's containers and networks. Raises EnvironmentUnfitError."""
        self._end_log()
        if not self._containers(all_of_project=True) and not self._networks():
            return
        self.refuse_foreign()
        if not self._containers():
            # Without a file, compose 2.26 ends nothing where the service that nginx depends on has no container
            # ("could not find vllm: not found").
            self._remove_gateways()
        self.client.compose(self._project, None, ("down", "--remove-orphans"), timeout_s=_DOWN_TIMEOUT_S)
        left = [_name(container) for container in self._containers(all_of_project=True)]
        left += self._unused_networks()
        if left:
            raise EnvironmentUnfitError(
                f"docker compose down left {', '.join(left)}", hint=f"docker rm -f {left[0]}"
            )

    def _remove_gateways(self) -> None:
        for container in self._gateways():
            with contextlib.suppress(NotFound), self.client.translating_errors():
                self.client.api.remove_container(container["Id"], force=True)

    def start_gateway(self, release: Release) -> None:
        """Start the gateway's container, or create it again. Raises EnvironmentUnfitError."""
        self.refuse_foreign()
        arguments = ("up", "--detach", "--no-build", "--pull", "never", "--no-deps", "--no-recreate")
        self.client.compose(
            self._project,
            release.folder / COMPOSE,
            (*arguments, _GATEWAY_SERVICE),
            timeout_s=_UP_TIMEOUT_S,
            folder=release.adopted_from(),
        )

    def observe(self) -> Observation:
        """Return the state of our container.

        Raises EnvironmentUnfitError, also for a stack of this name that this state directory did not start.
        """
        ours = self._containers()
        if not ours:
            self.refuse_foreign()
            if self._gateways():
                return self._with_gateway(MISSING)
            return MISSING
        try:
            found = [self._inspect(container) for container in ours]
            if len(found) > 1:
                return Observation(state="running")  # belongs to no launch, so that it is replaced
            if GATEWAY_LABEL in ours[0]["Labels"]:
                return self._with_gateway(found[0])
            return found[0]
        except NotFound:
            return MISSING  # removed between two questions

    def connections(self) -> int:
        """Return the number of connections from the front to this replica, accepted or not yet.

        An accepted end belongs to the network of the program that connected (net/unix/af_unix.c, unix_stream_connect),
        and has the name of the socket: it is in the list that the front's container sees. The end of nginx has none.
        Raises EnvironmentUnfitError.
        """
        front, _, number = self._deployment.name.rpartition("-")
        socket = f"{REPLICAS_FOLDER}/{number}/{SOCKET}"
        labels = [f"{DEPLOYMENT_LABEL}={front}", f"{_SERVICE_LABEL}={_GATEWAY_SERVICE}"]
        try:
            with self.client.translating_errors():
                fronts = self.client.api.containers(filters={"label": labels})
                if not fronts:
                    return 0
                command = self.client.api.exec_create(fronts[0]["Id"], ["cat", "/proc/net/unix"])
                listed = self.client.api.exec_start(command["Id"]).decode(errors="replace")
                code = self.client.api.exec_inspect(command["Id"])["ExitCode"]
        except NotFound:  # it has ended since
            return 0
        if code != 0:
            raise EnvironmentUnfitError(
                f"the requests of {self._deployment.name} cannot be counted: in the front's container "
                f"`cat /proc/net/unix` ended with {code}",
                hint=f"deckard-deploy logs --name {front} --gateway",
            )
        return sum(line.endswith(f" {socket}") for line in listed.splitlines())

    def reload(self) -> None:
        """Make the gateway read its files again. nginx completes old connections before it ends them."""
        self._signal_gateways("HUP")

    def drain(self) -> None:
        """Let nginx complete what it has begun and end: it is not restarted, because it ends with 0."""
        self._signal_gateways("QUIT")

    def _signal_gateways(self, name: str) -> None:
        for container in self._gateways():
            if container["State"] == "running":
                # A gateway that is gone by now reads its files when it starts.
                with contextlib.suppress(NotFound), self.client.translating_errors():
                    self.client.api.kill(container["Id"], name)

    def poll_lines(self, *, last: int | None = None) -> list[str]:
        """Return the new lines of the container's log."""
        ours = self._containers()
        if ours and (self._log is None or self._log.container != ours[0]["Id"]):
            self._end_log()
            self._log = DockerLog(self.client, ours[0]["Id"], last=last)
        if self._log is None:
            return []
        return self._log.poll()

    def tail(self, count: int) -> list[str]:
        """Return the last lines of the container's log."""
        return self._tail_of(self._containers(), count)

    def tail_gateway(self, count: int) -> list[str]:
        """Return the last lines of the log of the gateway's container."""
        return self._tail_of(self._gateways(), count)

    def _tail_of(self, containers: list[dict[str, Any]], count: int) -> list[str]:
        if not containers or count <= 0:
            return []
        try:
            with self.client.translating_errors():
                data = self.client.api.logs(containers[0]["Id"], tail=count)
        except NotFound:
            return []
        return clean_lines(data)

    def require_supported(self) -> None:
        """Raise EnvironmentUnfitError for podman, docker from snap and Docker Desktop."""
        self.client.require_supported()

    def ensure_engine(self, plan: LaunchPlan, say: Say) -> None:
        """Pull the plan's images unless they are here. Raises EnvironmentUnfitError, NetworkError."""
        for image in plan.images:
            if images.image_id(self.client, image) is None:
                say(f"image    {image} is not here: pulling it")
                images.pull(
                    self.client, image, platform=plan.platform, on_bytes=ByteLines(say, "image   ").show
                )

    def image_digests(self, image: str) -> list[str]:
        """Return the digests under which a local image is known in its repository."""
        return images.digests(self.client, image)

    def missing_image(self, plan: LaunchPlan) -> DiskNeed | Unknown | None:
        """Return the disk space that pulling the plan's image will take; None when the image is here."""
        if plan.image is None or images.image_id(self.client, plan.image):
            return None
        return images.space_needed(self.client, plan.image, plan.platform)

    def vllm_files(self, plan: LaunchPlan) -> VllmFiles:
        """Return the plan's image, and the docker engine that has it."""
        return VllmFiles(image=plan.image, endpoint=self.client.endpoint)

    def python(self, plan: LaunchPlan) -> PythonCommand:  # noqa: ARG002  the protocol's
        """Return the command that starts Python in the running container."""
        container = str(self.observe().instance_id)
        argv = ("docker", "exec", "--interactive", container, "python3")
        return PythonCommand(argv, {"DOCKER_HOST": self.client.endpoint})

    def run_python(self, plan: LaunchPlan, argv: tuple[str, ...]) -> str:  # noqa: ARG002  the protocol's
        """Run Python in the container. Raises StartFailedError when it is gone, EnvironmentUnfitError."""
        seen = self.observe()
        try:
            with self.client.translating_errors():
                command = self.client.api.exec_create(seen.instance_id, ["python3", *argv])
                return str(self.client.api.exec_start(command["Id"]).decode(errors="replace"))
        except NotFound as error:
            raise StartFailedError("its container is gone", hint="deckard-deploy logs") from error

    def close(self) -> None:
        """Close the log and the connections to docker; the container continues to run."""
        self._end_log()
        self.client.close()

    def _end_log(self) -> None:
        if self._log:
            self._log.close()
        self._log = None

    def _with_gateway(self, engine: Observation) -> Observation:
        """Return the engine's observation with the state of its gateway added."""
        gateway = MISSING
        gateways = self._gateways()
        if gateways:
            with contextlib.suppress(NotFound):  # removed since it was listed
                gateway = self._inspect(gateways[0])
        return replace(engine, gateway=gateway.state, gateway_exit_code=gateway.exit_code)

    def _gateways(self) -> list[dict[str, Any]]:
        """Return the gateways that this state directory has started.

        `render compose` gives an engine that a person starts the gateway's label, and no launch.
        """
        found = []
        for container in self._containers(all_of_project=True):
            is_gateway = container["Labels"].get(_SERVICE_LABEL) == _GATEWAY_SERVICE
            if is_gateway and self._is_ours(container):  # guard: F61
                found.append(container)
        return found

    def _inspect(self, container: dict[str, Any]) -> Observation:
        with self.client.translating_errors():
            return _observation(self.client.api.inspect_container(container["Id"]))

    def _containers(self, *, all_of_project: bool = False) -> list[dict[str, Any]]:
        """Return the server's containers, newest first; or all of the project, foreign ones included."""
        labels = [f"{_PROJECT_LABEL}={self._project}"]
        if not all_of_project:
            labels += [f"{DEPLOYMENT_LABEL}={self._deployment.name}", LAUNCH_LABEL]
        with self.client.translating_errors():
            found = self.client.api.containers(all=True, filters={"label": labels})
        if all_of_project:
            return list(found)
        return [container for container in found if self._is_ours(container)]

    def _networks(self) -> list[str]:
        with self.client.translating_errors():
            found = self.client.api.networks(filters={"label": f"{_PROJECT_LABEL}={self._project}"})
        return [network["Name"] for network in found]

    def _unused_networks(self) -> list[str]:
        """Return the project's networks without a container.

        Compose keeps a network that another project, such as monitoring, still uses.
        """
        return [name for name in self._networks() if self._is_unused(name)]

    def _is_unused(self, network: str) -> bool:
        try:
            with self.client.translating_errors():
                return not self.client.api.inspect_network(network)["Containers"]
        except NotFound:  # removed since it was listed
            return False

    def _is_ours(self, container: dict[str, Any]) -> bool:
        folder = str(container["Labels"].get(_FOLDER_LABEL, ""))
        if folder.startswith(f"{self._deployment.releases}/"):
            return True
        return os.path.realpath(folder) in self._accepted | adopted_folders(self._deployment)

    def refuse_foreign(self) -> None:
        """Raise EnvironmentUnfitError for a project of this name from another state directory or a person."""
        for container in self._containers(all_of_project=True):
            if not self._is_ours(container):  # guard: F40
                raise self._foreign(container)

    def _foreign(self, container: dict[str, Any]) -> EnvironmentUnfitError:
        folder = str(container["Labels"].get(_FOLDER_LABEL, "somewhere else"))
        stop = f"docker compose --project-name {self._project} down"
        if (Path(folder) / RENDERED_FOLDER).is_file():
            return EnvironmentUnfitError(
                f"{self._project} was started by hand from {folder} and is not adopted",
                hint=f"deckard-deploy adopt {folder}; or, to stop it: {stop}",
            )
        return EnvironmentUnfitError(
            f"container {_name(container)} of project {self._project} was not started from "
            f"{self._deployment.folder} but from {folder}",
            hint=f"stop it there, or: docker rm -f {_name(container)}",
        )


def _observation(inspected: dict[str, Any]) -> Observation:
    state = inspected["State"]
    labels = inspected["Config"]["Labels"]
    name: State = "exited"
    if state["Restarting"]:
        name = "restarting"
    elif state["Running"]:
        name = "running"
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
    if not container["Names"]:
        return str(container["Id"])[:12]
    return str(container["Names"][0]).removeprefix("/")
