"""`sbom`: what a deployment consists of, as a CycloneDX 1.6 document.

A verb and not a step of a build, because what runs is only known where it runs: image digest, patches, weights. No
serial number and no date, so that the same deployment gives the same bytes.
"""

import json
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import click

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli.host_plan import plan_for
from deckard_deploy.cli.options import deployment_options
from deckard_deploy.cli.state import state, state_option
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.resources import LOCK_FILE
from deckard_deploy.running.layout import StateDir
from deckard_deploy.weights import lockfile
from deckard_deploy.weights.folder import ModelFolder

Component = dict[str, Any]


@click.command()
@deployment_options
@state_option
def sbom(*, resolved: "Resolved", state_dir: Path | None) -> None:
    """List what a deployment consists of, as CycloneDX.

    The engine's and the gateway's image, the patches, the weights by the lock or as they were pulled, and the Python
    packages of this tool. Digests are there as far as the lock or this host knows them.

    \b
    Example:
      deckard-deploy sbom --profile spark > spark.cdx.json
    """
    directory = state(state_dir)
    click.echo(json.dumps(bill(resolved, plan_for(resolved, directory), directory), indent=2))


def bill(resolved: "Resolved", plan: "LaunchPlan", directory: "StateDir") -> dict[str, Any]:
    """The document, as plain data (cyclonedx.org/docs/1.6/json)."""
    components = [*_engine(plan), *_patches(plan), *_weights(resolved, directory), *_packages()]
    subject = {"type": "application", "bom-ref": "deployment", "name": plan.deployment, "version": plan.hash}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [
            {"ref": "deployment", "dependsOn": [component["bom-ref"] for component in components]}
        ],
    }


def _engine(plan: "LaunchPlan") -> "Iterator[Component]":
    if plan.image is None:
        yield {"type": "application", "bom-ref": "engine", "name": plan.engine, "version": plan.vllm_version}
    for image in plan.images:
        name, _, digest = image.partition("@sha256:")
        component = {
            "type": "container",
            "bom-ref": f"image:{name}",
            "name": name,
            "version": digest or "not locked",
        }
        yield {**component, "hashes": _sha256(digest)} if digest else component


def _patches(plan: "LaunchPlan") -> "Iterator[Component]":
    for patch in (*plan.patches, *((plan.plugin,) if plan.plugin else ())):
        where = {"type": "file", "bom-ref": f"patch:{patch.name}", "name": patch.module}
        yield {**where, "hashes": _sha256(patch.sha256)}


def _weights(resolved: "Resolved", directory: "StateDir") -> "Iterator[Component]":

    lock = lockfile.read(LOCK_FILE)
    for model in (resolved.model, resolved.drafter):
        if model is None:
            continue
        locked = lock.models.get(model.name) if lock else None
        manifest = locked or ModelFolder(directory.models / model.name).manifest()
        component: Component = {
            "type": "machine-learning-model",
            "bom-ref": f"model:{model.name}",
            "name": model.name,
        }
        if manifest:
            component |= {"group": manifest.repo, "version": manifest.commit}
            component["components"] = [
                {"type": "file", "bom-ref": f"{model.name}/{file.path}", "name": file.path}
                | ({"hashes": _sha256(file.sha256)} if file.sha256 else {})
                for file in manifest.needed
            ]
        yield component


def _packages() -> "Iterator[Component]":

    # A folder that a failed installation left has no name.
    named = [one for one in distributions() if one.name]
    found = {one.name.lower().replace("_", "-"): one.version for one in named}
    for name, version in sorted(found.items()):
        purl = f"pkg:pypi/{name}@{version}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _sha256(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]
