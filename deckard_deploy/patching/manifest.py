"""Patch sets: the changed files of a vLLM release, with the reason and the condition of each change."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from deckard_deploy.catalog import strict_yaml
from deckard_deploy.catalog.validation import validate
from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.patching.unified_diff import FileDiff, parse
from deckard_deploy.resources import patches_dir
from deckard_deploy.system.suggestion import closest

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]


class _StrictModel(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class NeededWhen(_StrictModel):
    """The conditions under which a plan needs a patch: one of them is enough."""

    always: bool = False
    drafter: bool = False
    quantization: tuple[Literal["nvfp4", "nvfp4_awq", "nvfp4_svd"], ...] = ()


class Patch(_StrictModel):
    """One changed file. The hashes are of the whole file before and after the change."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    target: Annotated[str, Field(pattern=r"^vllm(/[A-Za-z0-9_]+)+\.py$")]
    base_sha256: Sha256
    patched_sha256: Sha256
    needed_when: NeededWhen
    reason: str
    unpatched: str | None = Field(
        default=None, description="what can be had without the patch, and at what price"
    )
    upstream: tuple[str, ...]
    not_needed_from: Version | None = Field(
        description="first release that needs no such patch; null: none so far"
    )


class PatchSet(_StrictModel):
    """All patches of one vLLM release; `name` is the name of the folder."""

    name: str
    folder: Path = Field(exclude=True)
    vllm: Version
    patches: tuple[Patch, ...]

    def diff(self, patch: Patch) -> "FileDiff":
        """Read the diff of a patch. Raises IntegrityError if it is damaged or changes another file."""
        path = self.diff_file(patch)
        source = f"patches/{self.name}/{path.name}"
        try:
            diff = parse(path.read_text(encoding="utf-8"), source=source)
        except (OSError, UnicodeDecodeError) as error:
            raise IntegrityError(f"{source}: {error}", hint="reinstall deckard-deploy") from error
        if diff.target != patch.target:
            raise IntegrityError(f"{source}: changes {diff.target}, and the manifest says {patch.target}")
        return diff

    def diff_file(self, patch: Patch) -> Path:
        """Return the path of the diff of a patch."""
        return self.folder / f"{patch.name}.patch"


class _Manifest(_StrictModel):
    vllm: Version
    patches: tuple[Patch, ...]


def patch_set_names(root: Path | None = None) -> tuple[str, ...]:
    """Return the sorted names of all patch sets in the folder `root`; None: the program's own folder."""
    manifests = (root or patches_dir()).glob("*/manifest.yaml")
    return tuple(sorted(path.parent.name for path in manifests))


def load_patch_set(name: str, root: Path | None = None) -> PatchSet:
    """Load the patch set in the folder `name`, for example `vllm-0.19.1`.

    Raises BadInputError if it does not exist or its manifest is invalid.
    """
    known = patch_set_names(root)
    if name not in known:
        hint = closest(name, known) or "; known: " + ", ".join(known)
        raise BadInputError(f"no patch set named {name!r}{hint}")
    folder = (root or patches_dir()) / name
    text = (folder / "manifest.yaml").read_text(encoding="utf-8")
    manifest = validate(strict_yaml.parse(text, source=f"patches/{name}/manifest.yaml"), _Manifest)
    return PatchSet(name=name, folder=folder, vllm=manifest.vllm, patches=manifest.patches)


def needed_patches(patch_set: PatchSet, *, drafter: bool, quantization: str) -> tuple[Patch, ...]:
    """Return the patches without which a plan would not start or would answer wrongly.

    quantization: of the checkpoint, as in the catalog (`none`, `nvfp4`, `nvfp4_awq`, `nvfp4_svd`).
    """
    found = []
    for patch in patch_set.patches:
        if is_needed(patch, drafter=drafter, quantization=quantization):
            found.append(patch)
    return tuple(found)


def is_needed(patch: Patch, *, drafter: bool, quantization: str) -> bool:
    """Return True if a plan with this drafter and quantization needs the patch."""
    when = patch.needed_when
    return when.always or (when.drafter and drafter) or quantization in when.quantization


def sha256(data: bytes) -> str:
    """Return the hash in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
