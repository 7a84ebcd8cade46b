"""`render`: the plan of another host, with the folders it has there."""

import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.locked import apply_lock, require_locked
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import HostPaths, build_plan
from deckard_deploy.planning.replicas import as_front, replica_choice, shares
from deckard_deploy.rendering.compose import render_compose, render_compose_group, replica_servers
from deckard_deploy.rendering.gateway import Member, render_gateway, render_replicas
from deckard_deploy.rendering.kubernetes import ANY_CLUSTER, Cluster, render_kubernetes
from deckard_deploy.rendering.shell import render_command, render_run
from deckard_deploy.rendering.systemd import render_unit


def plan_files(
    choice: Choice, root: str, models_dir: str | None, report: Reporter, *, locked: bool = False
) -> "PlanFiles":
    """Return the files of the plan of a host that keeps models/, cache/ and patches/ in `root`.

    models_dir: another folder of the weights. locked: refuse every part that ./deckard.lock lacks.
    Raises BadInputError, IntegrityError.
    """
    resolved = resolve_choice(choice, report)
    # Compose and the shell expand ~/ in a mount. For a process it would stand in JSON and in variables.
    home = resolved.engine.runtime == "docker"
    folder = absolute(root, "--root", home=home)
    models = absolute(models_dir, "--models-dir", home=home) if models_dir else folder / "models"
    paths = HostPaths(
        models=models,
        caches=folder / "cache",
        patches=folder / "patches",
        deployments=folder / "deployments",
    )
    choices = [resolved]
    if resolved.replicas is not None:
        choices = [replica_choice(resolved, share) for share in shares(resolved)]
    plans = []
    for one in choices:
        plan = apply_lock(with_needed_patches(build_plan(one, paths), one, paths.patches))
        if locked:
            require_locked(one, plan)
        plans.append(plan)
    if resolved.replicas is None:
        return PlanFiles(plans[0], root)
    front = as_front(apply_lock(build_plan(replace(resolved, gateway="nginx"), paths)))
    return PlanFiles(front, root, tuple(plans))


def absolute(path: str, option: str, *, home: bool) -> PurePosixPath:
    """Return an absolute path of another host.

    home: ~/ is allowed. Raises BadInputError for any other path.
    """
    beginnings = ("/", "~/") if home else ("/",)
    if not path.startswith(beginnings) or not path.isprintable():
        raise BadInputError(f"{option}: {path!r}: an absolute path was expected")
    return PurePosixPath(path)


class PlanFiles(NamedTuple):
    """The files and command lines of a plan, as text. root: the folder of the plan's paths on the other host."""

    plan: LaunchPlan
    root: str = "/srv/deckard"
    replicas: tuple[LaunchPlan, ...] = ()

    def compose(self) -> str:
        """Return compose.yaml. Raises BadInputError for an engine without an image."""
        if self.replicas:
            _require_image(self.replicas[0])
            return render_compose_group(self.plan, self.replicas)
        _require_image(self.plan)
        return render_compose(self.plan)

    def gateway(self) -> str:
        """Return nginx.conf. Raises BadInputError for a plan without a gateway."""
        if self.plan.gateway is None:
            raise BadInputError(
                f"the plan of {self.plan.deployment} has no gateway", hint="deckard-deploy render compose"
            )
        if self.replicas:
            members = [Member(server) for server in replica_servers(self.replicas)]
            return render_gateway(self.plan, replicas=render_replicas(members, self.replicas[0]))
        return render_gateway(self.plan)

    def command(self) -> str:
        """Return the `vllm serve` line. Raises BadInputError for replicas."""
        self._require_one_engine("command")
        return render_command(self.plan)

    def unit(self, *, program: str, state_dir: str | None) -> str:
        """Return a systemd unit that runs `watch`. program: the path of deckard-deploy on the host of the unit.

        Raises BadInputError for a path that a unit cannot hold.
        """
        # systemd takes no others there, however they are quoted.
        if not re.fullmatch(r"/[A-Za-z0-9._/+-]+", program):
            raise BadInputError(f"--program: {program!r}: a path of letters, digits and . _ / + -")
        variables: tuple[str, ...] = ()
        if state_dir:
            variables = (f"DECKARD_HOME={absolute(state_dir, '--state-dir', home=False)}",)
        return render_unit(self.plan, program=(program,), variables=variables)

    def run(self) -> str:
        """Return the `docker run` line. Raises BadInputError for a plan that needs a second container."""
        self._require_one_engine("run")
        _require_image(self.plan)
        if self.plan.gateway and (self.plan.gateway.exposed or self.plan.gateway.tls):
            asked = "--expose" if self.plan.gateway.exposed else "TLS"
            raise BadInputError(
                f"{asked} needs the gateway, a second container", hint="deckard-deploy render compose"
            )
        return render_run(self.plan)

    def _require_one_engine(self, what: str) -> None:
        if self.replicas:
            raise BadInputError(
                f"render {what} is for one engine: take --replicas out", hint="deckard-deploy render compose"
            )

    def cluster(self, **settings: Any) -> Cluster:
        """Return what a cluster has, with the folder of the plan's paths."""
        return Cluster(root=str(PurePosixPath(self.root)), **settings)

    def kubernetes(self, cluster: Cluster = ANY_CLUSTER) -> str:
        """Return the Kubernetes manifests. Raises BadInputError for a plan that Kubernetes cannot run."""
        self._require_one_engine("k8s")
        _require_image(self.plan)
        try:
            text = render_kubernetes(self.plan, cluster)
        except ValueError as error:
            raise BadInputError(
                str(error), hint="render compose, or leave network, ipc, CUDA_VISIBLE_DEVICES and --compat"
            ) from error
        if any(mount.source.startswith("~/") for mount in self.plan.all_mounts):
            raise BadInputError(
                "Kubernetes does not know whose ~/ is meant", hint="--root and --models-dir with a whole path"
            )
        return text


def _require_image(plan: LaunchPlan) -> None:
    if plan.image is None:
        raise BadInputError(f"{plan.engine} runs without Docker", hint="deckard-deploy render command")
