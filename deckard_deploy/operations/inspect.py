"""`inspect`: a checkpoint, and the patches that it needs."""

from pathlib import Path
from typing import NamedTuple

from deckard_deploy.catalog.specs import Generated, LocalFolder
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.models import named_model
from deckard_deploy.patching.manifest import load_patch_set, needed_patches
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.weights import inspection
from deckard_deploy.weights.chat_template import TemplateCheck, chat_template, check_template
from deckard_deploy.weights.inspection import Inspection

PATCH_SET = "vllm-0.19.1"


class InspectedCheckpoint(NamedTuple):
    """An inspected checkpoint, its chat template, and the names of the patches that it needs."""

    found: Inspection
    patches: list[str]
    template: TemplateCheck


def inspect_checkpoint(
    model: str, drafter: str | None, state_dir: Path | None, *, count_nan: bool = False
) -> InspectedCheckpoint:
    """Inspect a checkpoint by its headers. model, drafter: a folder, or the name of a model.

    count_nan: read the weight scales too. Raises IntegrityError, BadInputError.
    """
    directory = state_directory(state_dir)
    folder = checkpoint_folder(model, directory)
    found = inspection.inspect(
        folder,
        drafter=checkpoint_folder(drafter, directory) if drafter else None,
        count_nan=count_nan,
    )
    return InspectedCheckpoint(
        found,
        needed_patch_names(found.quantization, drafter=drafter is not None),
        check_template(chat_template(folder)),
    )


def checkpoint_folder(named: str, directory: StateDir) -> Path:
    """Return `named` if it has a slash or is a folder, else the folder of the model of that name.

    Raises BadInputError.
    """
    path = Path(named)
    if path.is_dir():
        return path
    if "/" in named:
        raise BadInputError(f"{named}: no such folder", hint="give the folder that has config.json")
    folder = directory.models / named
    if not folder.is_dir():
        model = named_model(named, directory)
        if isinstance(model.weights, LocalFolder):
            return Path(model.weights.folder)
        generated = isinstance(model.weights, Generated)
        command = "up --profile cpu" if generated else f"pull --model {named}"
        raise BadInputError(f"{named} is not on this machine yet", hint=f"deckard-deploy {command}")
    return folder


def needed_patch_names(quantization: str, *, drafter: bool) -> list[str]:
    """Return the names of the patches that vLLM 0.19.1 needs for such a checkpoint."""
    patches = needed_patches(load_patch_set(PATCH_SET), drafter=drafter, quantization=quantization)
    return [patch.name for patch in patches]
