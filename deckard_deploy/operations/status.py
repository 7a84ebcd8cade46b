"""`status`: the facts of a deployment, or of all."""

from pathlib import Path
from typing import Any

from deckard_deploy.errors import BadInputError, DeployError
from deckard_deploy.operations.deployments import DeploymentRef, open_deployment, select_deployment
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.readiness import probe
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running import watch
from deckard_deploy.running.deploy import DeploymentContext, observe
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.running.releases import FAILURE_LOG
from deckard_deploy.system.processes import is_alive
from deckard_deploy.weights.folder import ModelFolder

PROBE_TIMEOUT_S = 10.0
# The exit code of `status` for each condition; of several deployments the first of this order.
EXIT_CODES = {"failed": 6, "not answering": 6, "unknown": 3, "stopped": 3, "loading": 7, "ready": 0}


def read_status(selection: Selection, report: Reporter) -> dict[str, Any]:
    """Return the facts of the running release as plain data. Raises EnvironmentUnfitError."""
    return _read(select_deployment(selection), report)


def read_all(selection: Selection, report: Reporter) -> list[dict[str, Any]]:
    """Return the facts of every deployment, or of the selected ones. One that cannot be read is `unknown`.

    Raises BadInputError when nothing was ever deployed.
    """
    directory = state_directory(selection.state_dir)
    names = [selection.name] if selection.name else directory.with_replicas()
    if not names:
        raise BadInputError("no deployments yet", hint="deckard-deploy up")
    facts = []
    for name in names:
        try:
            facts.append(_read(DeploymentRef(directory, name), report))
        except DeployError as error:
            facts.append({"deployment": name, "condition": "unknown", "reason": error.message})
    return facts


def exit_code(facts: list[dict[str, Any]]) -> int:
    """Return the exit code of the worst condition."""
    order = list(EXIT_CODES)
    worst = min((each["condition"] for each in facts), key=order.index)
    return EXIT_CODES[worst]


def condition(facts: dict[str, Any], launch_state: str | None) -> str:
    """Return the deployment's condition, one of EXIT_CODES. launch_state: of the last launch's record."""
    if facts["state"] == "missing":
        return "failed" if launch_state == "failed" else "stopped"
    if facts["state"] == "exited":
        return "stopped" if launch_state == "stopped" else "failed"
    if facts["state"] == "restarting":
        return "failed"
    if facts.get("answers") in ("ready", "loading"):
        return str(facts["answers"])
    return "not answering"


def _read(deployment: DeploymentRef, report: Reporter) -> dict[str, Any]:
    directory, name = deployment
    with open_deployment(directory, name, report) as context:
        facts = _facts(context, directory)
        newest = next(iter(context.releases.all()), None)
        launch = newest.launch_or_none() if newest else None
        found = condition(facts, launch.state if launch else None)
        return {"deployment": name, "condition": found, **facts}


def _facts(context: DeploymentContext, directory: StateDir) -> dict[str, Any]:
    seen = observe(context.runtimes)
    if seen.plan_hash:
        stored = context.releases.get(seen.plan_hash)
    else:
        stored = context.releases.current()
    if stored is None:
        return {"state": seen.state}
    release = stored.load()
    plan = release.plan
    launch = release.launch()
    running = seen.state == "running"
    found = probe(release, directory=directory, timeout_s=PROBE_TIMEOUT_S) if running else None
    return {
        "state": seen.state,
        "answers": str(found.outcome) if found else None,
        "base_url": plan.base_url if running else None,
        "gateway": _gateway(plan),
        "gateway_state": seen.gateway,
        "served_name": plan.served_name,
        "profile": plan.profile,
        "model": plan.model,
        "engine": plan.engine,
        "plan": release.plan_hash,
        "weights_changed": changed_weights(plan, directory),
        "since": launch.started_at if launch and running else None,
        "restarts": seen.restart_count,
        "exit_code": seen.exit_code,
        "instance": seen.instance_id,
        "gives_up": ", ".join(plan.given_up) or None,
        **_watch_facts(context),
        **_last_failure(context),
    }


def _last_failure(context: DeploymentContext) -> dict[str, str | None]:
    """Return the failure of the last start that failed, also of a release that another replaced again."""
    release = context.releases.last_failed()
    launch = release.launch_or_none() if release else None
    if release is None or launch is None:
        return {"last_failure": None, "failed_log": None}
    log = release.folder / FAILURE_LOG
    return {"last_failure": launch.reason, "failed_log": str(log) if log.is_file() else None}


def changed_weights(plan: LaunchPlan, directory: StateDir) -> list[str] | None:
    """Return the pulled files that have changed since their hash was right. No content is read."""
    folders = {directory.models / plan.model}
    folders.update(Path(mount.source) for mount in plan.mounts if mount.read_only)
    changed: list[str] = []
    for folder in sorted(folders):
        model = ModelFolder(folder)
        manifest = model.manifest()
        if manifest:
            changed += [f"{folder.name}/{file.path}" for file in model.changed(manifest.needed)]
    return changed or None


def _watch_facts(context: DeploymentContext) -> dict[str, Any]:
    """Return the state of `watch` while it runs or after it has given up, and its recorded restarts."""
    record = watch.read(context.releases.deployment)
    if record is None:
        return {}
    shown = is_alive(record.process) or record.state == "given up"
    return {
        "watch": record.state if shown else "not running",
        "watch_reason": record.reason if shown else None,
        "watch_restarts": [f"{one.at} {one.reason}: {one.outcome}" for one in record.restarts],
    }


def _gateway(plan: LaunchPlan) -> str:
    if plan.gateway is None:
        return "none"
    reach = "exposed" if plan.gateway.exposed else "loopback"
    encryption = "TLS" if plan.gateway.tls else "without TLS"
    return f"{reach}, {encryption}"
