"""`pull`: the weights of a choice, fetched and verified."""

from collections.abc import Iterator
from pathlib import Path

from deckard_deploy.catalog.specs import Generated, LocalFolder
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.manifests import hub_models, manifest_for
from deckard_deploy.operations.models import folder_of
from deckard_deploy.operations.options import DEFAULT_LOCK, Choice, LockUse
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.operations.weights import ensure_pulled, generate
from deckard_deploy.running.layout import state_directory
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.manifest import total_bytes


def pull_models(
    choice: Choice,
    state_dir: Path | None,
    report: Reporter,
    lock: LockUse = DEFAULT_LOCK,
    *,
    dry_run: bool = False,
) -> Iterator[Path]:
    """Pull or generate each model of the choice, and yield its folder.

    Complete files are kept, partial ones resumed.

    dry_run: report what is missing, and fetch nothing.
    Raises the errors of `manifest_for` and `ensure_pulled`.
    """
    directory = state_directory(state_dir)
    resolved = resolve_choice(choice, report, directory)
    if isinstance(resolved.model.weights, LocalFolder):
        report.say(f"weights  {resolved.model.name} is your own: nothing to fetch")
    for model in (resolved.model, resolved.drafter):
        if model and isinstance(model.weights, Generated):
            folder = folder_of(model, directory)
            report.say(
                f"{'would   ' if dry_run else 'weights '} write {model.name}, which is generated, to {folder}"
            )
            if not dry_run:
                generate(model, folder)
            yield folder
    for model in hub_models(resolved):
        folder = folder_of(model, directory)
        if dry_run:
            manifest = manifest_for(model, folder, lock)
            missing = ModelFolder(folder).changed(manifest.needed)
            report.say(
                f"would    check or fetch {len(missing)} files, {total_bytes(missing):,} bytes, of {model.name}"
            )
        else:
            size = ensure_pulled(model, folder, report, lock)
            report.say(
                f"weights  {model.name} is complete and right; files of {size:,} bytes were not there yet"
            )
        yield folder
