"""Render a folder for a machine without this tool: compose file, nginx.conf, scripts and a README.

All paths in it are relative to the folder. What differs between machines is in its .env, which compose reads.
No key and no hash of a key is rendered: keys.sh writes both on the machine that runs the folder.
"""

from pathlib import PurePosixPath

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import HubRepository
from deckard_deploy.planning.gateway import IMAGE_USER
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import HostPaths
from deckard_deploy.rendering.compose import render_compose
from deckard_deploy.rendering.gateway import CONFIG, render_gateway
from deckard_deploy.rendering.templates import environment

COMPOSE, ENVIRONMENT, PLAN = "compose.yaml", ".env", "plan.json"
# The variables of .env. prepare.sh writes the two users for the machine that it runs on.
MODELS, USER, GATEWAY_USER = "DECKARD_MODELS", "DECKARD_USER", "DECKARD_GATEWAY_USER"
DEFAULTS = {MODELS: "./models", USER: "0:0", GATEWAY_USER: IMAGE_USER}
# Relative to the folder.
PATHS = HostPaths(
    models=PurePosixPath(f"${{{MODELS}}}"),
    caches=PurePosixPath("cache"),
    patches=PurePosixPath("patches"),
    deployments=PurePosixPath("deployments"),
    owner=f"${{{USER}}}",
)


def folder_plan(plan: LaunchPlan) -> LaunchPlan:
    """Return a plan that was built with PATHS, with nginx as the user of .env."""
    if plan.gateway is None:
        return plan
    gateway = plan.gateway.model_copy(update={"user": f"${{{GATEWAY_USER}}}"})
    return plan.model_copy(update={"gateway": gateway})


def launch_id(plan: LaunchPlan) -> str:
    """Return the id by which `adopt` recognizes a stack that was started from the folder."""
    return f"deckard-launch-{plan.hash}"


def render_folder(plan: LaunchPlan, resolved: Resolved, *, models: str | None = None) -> dict[str, str]:
    """Return the text files of a plan that `folder_plan` returned, by name.

    models: the folder of the weights on the other machine; default: models/ in the folder.
    """
    files = {PLAN: plan.model_dump_json(indent=1) + "\n", COMPOSE: _compose(plan)}
    if plan.gateway:
        files[CONFIG] = render_gateway(plan)
    values = DEFAULTS | {MODELS: models or DEFAULTS[MODELS]}
    facts = {
        "plan": plan,
        "deployment": plan.deployment,
        "values": values,
        "models": [PurePosixPath(mount.source).name for mount in plan.mounts if mount.read_only],
        "caches": [mount.source for mount in plan.mounts if not mount.read_only],
        "built": plan.built,
        "downloads": _downloads(resolved),
        "generated": _generated(resolved),
    }
    templates = {
        "prepare.sh": "prepare.sh.j2",
        ENVIRONMENT: "env.j2",
        ".gitignore": "gitignore.j2",
        "README.md": "README.md.j2",
    }
    if plan.gateway:
        templates["keys.sh"] = "keys.sh.j2"
    for name, template in templates.items():
        files[name] = environment().get_template(f"folder/{template}").render(facts)
    return files


def _compose(plan: LaunchPlan) -> str:
    """Return compose.yaml with the variables of .env, which compose replaces, and every other `$` doubled."""
    text = render_compose(plan, launch_id=launch_id(plan))
    for name in DEFAULTS:
        text = text.replace(f'"$${{{name}}}', f'"${{{name}}}')
    return text


def _models(resolved: Resolved) -> list[tuple[str, HubRepository | None]]:
    """Return each model with weights: its name, and its repository; None for one that this tool generates."""
    found = []
    for model in (resolved.model, resolved.drafter):
        if model and model.weights:
            found.append((model.name, model.weights if isinstance(model.weights, HubRepository) else None))
    return found


def _downloads(resolved: Resolved) -> list[tuple[str, HubRepository]]:
    return [(name, repository) for name, repository in _models(resolved) if repository]


def _generated(resolved: Resolved) -> list[str]:
    return [name for name, repository in _models(resolved) if repository is None]
