"""`sbom`: a CycloneDX 1.6 document of all parts of a deployment.

It is a verb and not a step of a build, because image digest, patches and weights are only known on the host
that runs them. It has no serial number and no date, so that the same deployment gives the same bytes.
"""

from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.models import folder_of
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import current_plan, plan_for_host
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.resources import LOCK_FILE
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.weights import lockfile
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.manifest import Manifest

Component = dict[str, Any]


def bill_of_materials(choice: Choice, state_dir: Path | None, report: Reporter) -> dict[str, Any]:
    """Return the document as plain data (cyclonedx.org/docs/1.6/json)."""
    directory = state_directory(state_dir)
    resolved = resolve_choice(choice, report, directory)
    plan = plan_for_host(resolved, directory, current_plan(directory, resolved.name))
    return bill_of(plan, resolved, directory)


def bill_of(plan: LaunchPlan, resolved: Resolved, directory: StateDir) -> dict[str, Any]:
    """Return the document of one plan as plain data."""
    components = [*_engine(plan), *_patches(plan), *_weights(resolved, directory), *_packages()]
    references = [component["bom-ref"] for component in components]
    subject = {
        "type": "application",
        "bom-ref": "deployment",
        "name": plan.deployment,
        "version": plan.hash,
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [{"ref": "deployment", "dependsOn": references}],
    }


def _engine(plan: LaunchPlan) -> Iterator[Component]:
    if plan.image is None:
        yield {
            "type": "application",
            "bom-ref": "engine",
            "name": plan.engine,
            "version": plan.vllm_version,
        }
    for image in plan.images:
        name, _, digest = image.partition("@sha256:")
        component: Component = {
            "type": "container",
            "bom-ref": f"image:{name}",
            "name": name,
            "version": digest or "not locked",
        }
        if digest:
            component["hashes"] = _sha256(digest)
        yield component


def _patches(plan: LaunchPlan) -> Iterator[Component]:
    for patch in plan.built:
        yield {
            "type": "file",
            "bom-ref": f"patch:{patch.name}",
            "name": patch.module,
            "hashes": _sha256(patch.sha256),
        }


def _weights(resolved: Resolved, directory: StateDir) -> Iterator[Component]:
    lock = lockfile.read(LOCK_FILE)
    for model in (resolved.model, resolved.drafter):
        if model is None:
            continue
        locked = lock.models.get(model.name) if lock else None
        manifest = locked or ModelFolder(folder_of(model, directory)).manifest()
        component: Component = {
            "type": "machine-learning-model",
            "bom-ref": f"model:{model.name}",
            "name": model.name,
        }
        if manifest:
            component["group"] = manifest.repo
            component["version"] = manifest.commit
            component["components"] = _files(model.name, manifest)
        yield component


def _files(model: str, manifest: Manifest) -> list[Component]:
    files = []
    for file in manifest.needed:
        entry: Component = {"type": "file", "bom-ref": f"{model}/{file.path}", "name": file.path}
        if file.sha256:
            entry["hashes"] = _sha256(file.sha256)
        files.append(entry)
    return files


def _packages() -> Iterator[Component]:
    # The leftover folder of a failed installation has no name.
    named = [package for package in distributions() if package.name]
    versions = {package.name.lower().replace("_", "-"): package.version for package in named}
    for name, version in sorted(versions.items()):
        purl = f"pkg:pypi/{name}@{version}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _sha256(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]
