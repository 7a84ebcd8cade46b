"""Release folders: render and store one, and find the files that this version renders differently."""

import json
import secrets
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

from deckard_deploy.catalog.specs import ModelSpec
from deckard_deploy.errors import IntegrityError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.compose import render_compose
from deckard_deploy.rendering.gateway import render_gateway
from deckard_deploy.rendering.shell import render_command
from deckard_deploy.resources import tool_version
from deckard_deploy.running.releases import (
    ASKED,
    COMPOSE,
    GATEWAY,
    PLAN,
    Launch,
    Release,
    ReleaseFolder,
    Releases,
)
from deckard_deploy.system.files import translating_write_errors


class Asked(NamedTuple):
    """What the user had asked for when a release was planned, and the version of this tool that planned it."""

    asked: str
    version: str


def record_asked(release: Release, releases: Releases, asked: str) -> None:
    """Record that the user has asked for what this release is."""
    releases.store(release.plan_hash, {ASKED: _asked_json(asked)})


def read_asked(release: ReleaseFolder) -> Asked | None:
    """Return the recorded wish of a release; None for one of a version that recorded none."""
    try:
        found = json.loads(release.text(ASKED))
        return Asked(str(found["asked"]), str(found["version"]))
    except (IntegrityError, ValueError, KeyError, TypeError):
        return None


def asked_model(release: ReleaseFolder) -> ModelSpec | None:
    """Return the model that the user named by a file, a folder or a repository; None for one of the catalog."""
    found = read_asked(release)
    if found is None:
        return None
    try:
        spec = json.loads(found.asked).get("model")
        return ModelSpec.model_validate_json(json.dumps(spec)) if spec else None
    except (ValueError, AttributeError):  # of an earlier version, or edited
        return None


def _asked_json(asked: str) -> str:
    return json.dumps({"asked": asked, "version": tool_version()}, indent=1) + "\n"


def create_release(plan: LaunchPlan, releases: Releases, asked: str | None = None) -> tuple[Release, Launch]:
    """Render the plan for a new launch, and store its release folder.

    asked: what the user has asked for; None to leave the record of it as it is. Raises the errors of
    `Releases.store`.
    """
    launch_id = f"deckard-launch-{secrets.token_hex(6)}"
    files = rendered_files(plan, launch_id)
    launch = Launch(
        launch_id=launch_id,
        started_at=datetime.now(UTC).isoformat("T", "seconds"),
        state="starting",
        runtime=plan.runtime,
        base_url=plan.base_url,
        rendered=content_hashes(files),
    )
    described = {
        PLAN: plan.model_dump_json(indent=1) + "\n",
        "command.txt": render_command(plan, launch_id=launch_id),
    }
    if asked is not None:
        described[ASKED] = _asked_json(asked)
    stored = releases.store(plan.hash, described | files)
    return Release(stored.folder, plan), launch


def stale_files(release: Release) -> tuple[str, ...]:
    """Return the names of the release's files that this version would render differently.

    A plan holds the hashes of its patches and of its plugin, but none of our templates. Raises
    IntegrityError.
    """
    launch = release.recorded_launch()
    wanted = content_hashes(rendered_files(release.plan, launch.launch_id))
    return tuple(name for name, digest in wanted.items() if launch.rendered.get(name) != digest)


def renew_gateway_config(release: Release) -> bool:
    """Write nginx.conf as this version renders it, if it alone is stale. Return True if it was written.

    The gateway reads it by a reload, so the engine need not restart. It is written in place: docker mounts the
    file, not its name. Raises IntegrityError.
    """
    if stale_files(release) != (GATEWAY,):
        return False
    launch = release.recorded_launch()
    files = rendered_files(release.plan, launch.launch_id)
    path = release.folder / GATEWAY
    with translating_write_errors(path):
        path.write_text(files[GATEWAY])
    release.record(launch.model_copy(update={"rendered": content_hashes(files)}))
    return True


def rendered_files(plan: LaunchPlan, launch_id: str) -> dict[str, str]:
    """Return the files that a launch runs from, by name."""
    files = {}
    if plan.gateway:
        files[GATEWAY] = render_gateway(plan)
    if plan.runtime == "docker":
        files[COMPOSE] = render_compose(plan, launch_id=launch_id)
    return files


def content_hashes(files: dict[str, str]) -> dict[str, str]:
    """Return the SHA-256 of each text without its comments: one of them holds the version of this tool."""
    hashes = {}
    for name, text in files.items():
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        hashes[name] = sha256("\n".join(lines).encode()).hexdigest()
    return hashes
