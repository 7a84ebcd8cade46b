"""The Python API, for scripts, notebooks and Ansible modules that do without the command line.

Provisional: names and fields may change in a minor release until 1.0. Nothing here prints, reads click's
context or ends the process. Every function raises a subclass of `deckard_deploy.errors.DeployError`. The
command line prints its `message` and `hint`, and exits with its `exit_code`.

    from deckard_deploy import api

    running = api.up(api.Choice(profile="cpu"))
    print(running.base_url, api.status(name=running.deployment)["answers"])
    api.down(name=running.deployment)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from deckard_deploy.doctor.findings import Finding
from deckard_deploy.errors import DeployError
from deckard_deploy.operations import chat as _chat
from deckard_deploy.operations import doctor as _doctor
from deckard_deploy.operations import plan as _plan
from deckard_deploy.operations import render as _render
from deckard_deploy.operations import replicas as _replicas
from deckard_deploy.operations import status as _status
from deckard_deploy.operations.options import Choice, Selection, UpOptions
from deckard_deploy.operations.reporting import SILENT, Reporter

__all__ = [
    "SILENT",
    "ChatEndpoint",
    "Choice",
    "DeployError",
    "Finding",
    "PlannedDeployment",
    "Reporter",
    "RunningEndpoint",
    "chat_endpoint",
    "doctor",
    "down",
    "plan",
    "render",
    "status",
    "up",
]

Format = Literal["compose", "gateway", "command", "run", "k8s"]


class PlannedDeployment(NamedTuple):
    """A plan for this host.

    plan_hash: 12 hexadecimal digits, the release's name. arguments: of `vllm serve`, without the program.
    changes: from the current release, one line each; empty for a first deployment as well. fits: whether the
    plan fits into the memory: "fits", "doubtful", "no", or "unknown". as_json: the whole plan as plain data.
    """

    plan_hash: str
    deployment: str
    base_url: str
    arguments: tuple[str, ...]
    changes: tuple[str, ...]
    fits: str
    as_json: dict[str, Any]


class RunningEndpoint(NamedTuple):
    """An endpoint that was proven ready. served_name: the `model` of requests."""

    deployment: str
    plan_hash: str
    base_url: str
    served_name: str


@dataclass(frozen=True)
class ChatEndpoint:
    """The settings of an OpenAI client for an endpoint.

    api_key: the key of this tool itself; None for an endpoint without a gateway.
    certificate_sha256: the fingerprint to pin for an endpoint with TLS; None without TLS.
    """

    base_url: str
    served_name: str
    api_key: str | None
    certificate_sha256: str | None


def plan(
    choice: Choice, *, state_dir: Path | None = None, locked: bool = False, report: Reporter = SILENT
) -> PlannedDeployment:
    """Return the plan that `up` would run on this host. Nothing is written or started.

    locked: refuse every part that ./deckard.lock lacks. Raises BadInputError, IntegrityError.
    """
    view = _plan.view_plan(choice, state_dir, report, locked=locked)
    planned = view.planned.plan
    return PlannedDeployment(
        plan_hash=planned.hash,
        deployment=planned.deployment,
        base_url=planned.base_url,
        arguments=planned.arguments,
        changes=tuple(view.changes),
        fits=_plan.memory_verdict(view.planned),
        as_json=planned.model_dump(mode="json"),
    )


def render(
    choice: Choice,
    format: Format = "compose",  # noqa: A002  the usual word for it
    *,
    root: str = "/srv/deckard",
    report: Reporter = SILENT,
) -> str:
    """Return a file or a command line of a plan for another host.

    format: compose.yaml, the gateway's nginx.conf, the `vllm serve` line, the `docker run` line, or
    Kubernetes manifests. root: the folder on that host that holds models/, cache/ and patches/. Raises
    BadInputError.
    """
    files = _render.plan_files(choice, root, None, report)
    texts = {
        "compose": files.compose,
        "gateway": files.gateway,
        "command": files.command,
        "run": files.run,
        "k8s": files.kubernetes,
    }
    return texts[format]()


def up(
    choice: Choice,
    *,
    state_dir: Path | None = None,
    locked: bool = False,
    force: bool = False,
    report: Reporter = SILENT,
) -> RunningEndpoint:
    """Start the endpoint of a choice, and return once it is proven ready. An unchanged one is not restarted.

    locked: refuse every part that ./deckard.lock lacks. force: continue although `doctor` found a reason to
    stop. Raises DeployError: bad input, an unfit host, too little memory, the network, a start that failed or
    timed out.
    """
    running = _replicas.up(choice, state_dir, report, UpOptions(locked=locked, force=force)).plan
    return RunningEndpoint(running.deployment, running.hash, running.base_url, running.served_name)


def down(
    *,
    name: str | None = None,
    state_dir: Path | None = None,
    purge: bool = False,
    report: Reporter = SILENT,
) -> None:
    """Stop a deployment. name: None for the only one. purge: remove its releases too.

    Raises BadInputError (no such deployment), EnvironmentUnfitError, DeploymentBusyError.
    """
    _replicas.down(Selection(state_dir, name), report, purge=purge)


def status(
    *, name: str | None = None, state_dir: Path | None = None, report: Reporter = SILENT
) -> dict[str, Any]:
    """Return the facts that `deckard-deploy status --json` prints. name: None for the only deployment.

    Raises BadInputError (no such deployment), EnvironmentUnfitError.
    """
    return _status.read_status(Selection(state_dir, name), report)


def doctor(
    choice: Choice = Choice(),  # noqa: B008  a frozen value
    *,
    state_dir: Path | None = None,
    report: Reporter = SILENT,
) -> Sequence[Finding]:
    """Return the findings about this machine, for a choice or for any.

    Nothing is changed. Raises BadInputError.
    """
    return _doctor.examine(choice, state_dir, report).findings


def chat_endpoint(
    *, name: str | None = None, state_dir: Path | None = None, report: Reporter = SILENT
) -> ChatEndpoint:
    """Return the settings of an OpenAI client for the running endpoint.

    Raises BadInputError when nothing runs.
    """
    found = _chat.chat_endpoint(Selection(state_dir, name), report)
    return ChatEndpoint(found.base_url, found.model, found.access.key, found.access.pinned)
