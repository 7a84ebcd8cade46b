"""Options, deckard.yaml and this machine, resolved into one choice."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from deckard_deploy.catalog import library, listing, overrides
from deckard_deploy.catalog.option_schema import RefusedOptionError
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.specs import Deployment, ModelSpec
from deckard_deploy.catalog.strict_yaml import Document
from deckard_deploy.catalog.validation import validate
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.models import find_model, is_of_catalog
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.resources import LOCK_FILE
from deckard_deploy.running.layout import StateDir

DEFAULT_FILE = Path("deckard.yaml")


def resolve_choice(choice: Choice, report: Reporter, directory: StateDir | None = None) -> Resolved:
    """Return the settings of the catalog and of the user as one resolved choice.

    directory: keeps the configurations of repositories; None: the user's own. Raises BadInputError; with `detect` also
    EnvironmentUnfitError when no profile fits this machine; the errors of `find_model`.
    """
    config = choice.config
    # A dangling link is an error, not another deployment.
    if config is None and os.path.lexists(DEFAULT_FILE):
        config = DEFAULT_FILE
    document = overrides.merged(overrides.read_deployment(config), choice.settings, choice.written_as)
    deployment = validate(document, Deployment)
    compatibility = library.compatibility(choice.compat) if choice.compat else None
    name = choice.profile or deployment.profile
    if name is None and compatibility:
        name = compatibility.profile
    if name is None:
        name = _detected_profile(choice, report)
    is_file = "/" in name or name.endswith((".yaml", ".yml"))
    spec = library.profile_from_file(Path(name)) if is_file else library.profile(name)
    reference = deployment.model or (compatibility or spec).model
    model = find_model(reference, directory, report)
    with _option_with_its_place(document, deployment):
        resolved = resolve(deployment, profile=spec, compatibility=compatibility, model=model)
    _report_notes(resolved, report)
    if config and choice.config is None:
        report.say(f"config   ./{config}")
    asked = {
        "profile": name,
        "profile_file": spec.model_dump(mode="json") if is_file else None,
        "model": _spec_outside_catalog(reference, model),
        "compatibility": choice.compat,
        "deployment": deployment.model_dump(mode="json", exclude_defaults=True),
        "lock": sha256(LOCK_FILE.read_bytes()).hexdigest() if LOCK_FILE.is_file() else None,
    }
    return replace(resolved, asked=json.dumps(asked, sort_keys=True))


def _spec_outside_catalog(reference: str, model: ModelSpec) -> dict[str, Any] | None:
    """Return the spec of a model that its name does not give alone: its source may change."""
    if reference == model.name and is_of_catalog(model):
        return None
    return model.model_dump(mode="json")


def _report_notes(resolved: Resolved, report: Reporter) -> None:
    for note in resolved.notes:
        report.say(f"note     {note}")


def _detected_profile(choice: Choice, report: Reporter) -> str:
    if choice.detect:
        from deckard_deploy.operations.host import detect_profile  # noqa: PLC0415  only to detect

        return detect_profile(report)
    known = ", ".join(listing.names("profiles"))
    raise BadInputError(
        f"no hardware profile was named; known: {known}", hint="the same command with --profile NAME"
    )


@contextmanager
def _option_with_its_place(document: Document, deployment: Deployment) -> Iterator[None]:
    """Add file and line, or the option as it was typed, to the error of an option of vLLM."""
    try:
        yield
    except RefusedOptionError as error:
        if error.name not in deployment.serve:
            raise
        where = document.where(("serve", error.name))
        raise RefusedOptionError(error.name, f"{where}: {error.message}") from error
