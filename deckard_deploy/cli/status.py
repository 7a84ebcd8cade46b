"""`status`: what runs, since when, and whether it answers."""

import json
from pathlib import Path
from typing import Any

import click

from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.site import open_site, probe
from deckard_deploy.cli.state import Deployed, deployment_option
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running import watch
from deckard_deploy.running.deploy import Site, observe
from deckard_deploy.running.layout import StateDir
from deckard_deploy.system.processes import is_alive
from deckard_deploy.weights.folder import ModelFolder

PROBE_TIMEOUT_S = 10.0


@click.command()
@deployment_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(deployed: Deployed, as_json: bool) -> None:  # noqa: FBT001  click passes flags so
    """Say what runs, since when, and whether it answers.

    \b
    Example:
      deckard-deploy status --json
    """
    directory, found = deployed
    with open_site(directory, found, say) as site:
        facts = {"deployment": found, **_facts(site, directory)}
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        table([(key.replace("_", " "), text) for key, value in facts.items() for text in _texts(value)])


def _texts(value: object) -> list[str]:
    """A line for each of a list's values, none for what is not known."""
    return list(map(str, value)) if isinstance(value, list) else [] if value is None else [str(value)]


def _facts(site: "Site", directory: "StateDir") -> dict[str, Any]:

    seen = observe(site.runtimes)
    release = site.releases.get(seen.plan_hash) if seen.plan_hash else site.releases.current()
    if release is None:
        return {"state": seen.state}
    plan, launch = release.plan(), release.launch()
    running = seen.state == "running"
    found = probe(release, directory=directory, timeout_s=PROBE_TIMEOUT_S) if running else None
    return {
        "state": seen.state,
        "answers": str(found.outcome) if found else None,
        "base_url": plan.base_url if running else None,
        "gateway": _gateway(plan),
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
        **_watched(site),
        "last_failure": launch.reason if launch and launch.state == "failed" else None,
    }


def changed_weights(plan: "LaunchPlan", directory: "StateDir") -> list[str] | None:
    """Pulled files that are not as they were when their hash was right. No content is read."""
    folders = {
        directory.models / plan.model,
        *(Path(mount.source) for mount in plan.mounts if mount.read_only),
    }
    changed = []
    for folder in sorted(folders):
        model = ModelFolder(folder)
        if manifest := model.manifest():
            changed += [f"{folder.name}/{file.path}" for file in model.changed(manifest.needed)]
    return changed or None


def _watched(site: "Site") -> dict[str, Any]:
    """What `watch` says of it, while that lives or when it has given up, and every restart that it remembers."""
    record = watch.read(site.releases.deployment)
    if record is None:
        return {}
    shown = is_alive(record.process) or record.state == "given up"
    return {
        "watch": record.state if shown else "not running",
        "watch_reason": record.reason if shown else None,
        "watch_restarts": [f"{one.at} {one.reason}: {one.outcome}" for one in record.restarts],
    }


def _gateway(plan: "LaunchPlan") -> str:
    if plan.gateway is None:
        return "none"
    return (
        f"{'exposed' if plan.gateway.exposed else 'loopback'}, {'TLS' if plan.gateway.tls else 'without TLS'}"
    )
