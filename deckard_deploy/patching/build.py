"""The build of patched files: verify the base, apply the diff exactly, verify and compile the result."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from deckard_deploy.errors import IntegrityError
from deckard_deploy.patching.base_files import BaseFiles
from deckard_deploy.patching.manifest import Patch, PatchSet, is_needed, sha256
from deckard_deploy.patching.release_hashes import describe_file
from deckard_deploy.patching.unified_diff import FileDiff, HunkMismatchError, apply, reverse
from deckard_deploy.system.files import write_atomically
from deckard_deploy.system.versions import version_numbers

_NEXT = "deckard-deploy patches check"


@dataclass(frozen=True, kw_only=True)
class BuiltPatch:
    """A patched file on this host, and the file that it replaces."""

    name: str
    target: str
    path: Path
    base_sha256: str
    sha256: str

    @property
    def module(self) -> str:
        """The dotted name under which Python imports the file."""
        return self.target.removesuffix(".py").replace("/", ".")


class PatchState(Enum):
    """The relation of a patch to a file."""

    APPLIES = "applies"
    APPLIED = "already applied"
    UPSTREAM = "already upstream"
    NOT_NEEDED = "not needed by this plan"
    CONFLICTS = "conflicts"
    OTHER_BASE = "other base file"


@dataclass(frozen=True, kw_only=True)
class PatchVerdict:
    """The state of one patch for one file.

    detail: an explanation. found: a description of the file if it is not the base.
    """

    name: str
    target: str
    verdict: PatchState
    detail: str = ""
    found: str = ""

    @property
    def fits(self) -> bool:
        """True unless the patch prevents a deployment."""
        return self.verdict not in (PatchState.CONFLICTS, PatchState.OTHER_BASE)


def build(
    patch_set: PatchSet, base: BaseFiles, out: Path, patches: Iterable[Patch] | None = None
) -> tuple[BuiltPatch, ...]:
    """Write the patched files into `out`, each as NAME_patched.py.

    patches: the patches to build; None: all of the set. An existing file with the right content keeps its
    inode, because a running container may have it mounted. Raises IntegrityError, and then writes no file.
    """
    chosen = tuple(patch_set.patches if patches is None else patches)
    results = [(patch, patched_text(patch_set, patch, base)) for patch in chosen]
    return tuple(_write(patch, text.encode(), out) for patch, text in results)


def patched_text(patch_set: PatchSet, patch: Patch, base: BaseFiles) -> str:
    """Return the patched module. Raises IntegrityError if base, diff or result do not match the manifest."""
    content = base.files[patch.target]
    digest = sha256(content)
    if digest != patch.base_sha256:
        raise IntegrityError(
            f"{patch.target} in {base.origin} is {describe_file(patch.target, digest)}; "
            f"patch {patch.name} is for vLLM {patch_set.vllm}",
            hint=_NEXT,
        )
    text = apply(patch_set.diff(patch), content.decode())
    patched_digest = sha256(text.encode())
    if patched_digest != patch.patched_sha256:
        raise IntegrityError(f"patch {patch.name} gives {patched_digest[:12]}…, not what its manifest says")
    try:
        compile(text, patch.target, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise IntegrityError(f"{patch.target} does not compile after patch {patch.name}: {error}") from error
    return text


def check(
    patch_set: PatchSet, base: BaseFiles, *, drafter: bool, quantization: str
) -> tuple[PatchVerdict, ...]:
    """Return the state of each patch of the set for these files and this plan."""
    verdicts = []
    for patch in patch_set.patches:
        if is_needed(patch, drafter=drafter, quantization=quantization):
            verdicts.append(_verdict(patch_set, patch, base))
        else:
            state = PatchState.NOT_NEEDED
            verdicts.append(PatchVerdict(name=patch.name, target=patch.target, verdict=state))
    return tuple(verdicts)


def check_release(patch_set: PatchSet, base: BaseFiles, version: str) -> tuple[PatchVerdict, ...]:
    """Return the state of each patch for the files of another release, which may have the change."""
    verdicts = []
    for patch in patch_set.patches:
        if patch.not_needed_from and version_numbers(version) >= version_numbers(patch.not_needed_from):
            detail = f"since {patch.not_needed_from}"
            state = PatchState.UPSTREAM
            verdicts.append(PatchVerdict(name=patch.name, target=patch.target, verdict=state, detail=detail))
        else:
            verdicts.append(_verdict(patch_set, patch, base))
    return tuple(verdicts)


def import_built(built: Sequence[BuiltPatch], python: Path, overlay: Path) -> None:
    """Import the patched modules with a Python that has vLLM. torch makes it take ten seconds or more.

    overlay: a folder made by `overlay.overlay`. Raises IntegrityError with the last line of the error output.
    """
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    argv = (str(python), "-P", "-c", code, *(patch.module for patch in built))
    environment = {**os.environ, "PYTHONPATH": str(overlay)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise IntegrityError(f"the patched vLLM does not import with {python}: {reason}")


def _verdict(patch_set: PatchSet, patch: Patch, base: BaseFiles) -> PatchVerdict:
    content = base.files.get(patch.target)
    if content is None:  # see from_wheel, missing_ok
        state = PatchState.CONFLICTS
        return PatchVerdict(name=patch.name, target=patch.target, verdict=state, detail="no such file")
    digest = sha256(content)
    diff = patch_set.diff(patch)
    if digest == patch.base_sha256:
        return PatchVerdict(name=patch.name, target=patch.target, verdict=PatchState.APPLIES)
    state, detail = _state_of_other_file(diff, content.decode(errors="replace"))
    found = describe_file(patch.target, digest)
    return PatchVerdict(name=patch.name, target=patch.target, verdict=state, detail=detail, found=found)


def _state_of_other_file(diff: FileDiff, text: str) -> tuple[PatchState, str]:
    """Return the state of a patch, with its explanation, for a file that is not its base."""
    if _mismatch(reverse(diff), text) is None:
        return PatchState.APPLIED, ""
    mismatch = _mismatch(diff, text)
    if mismatch is not None:
        return PatchState.CONFLICTS, f"hunk {mismatch.number} of {len(diff.hunks)}, line {mismatch.line}"
    return PatchState.OTHER_BASE, "every hunk fits, but the rest of the file is another"


def _mismatch(diff: FileDiff, text: str) -> HunkMismatchError | None:
    """Return the error of the first hunk that does not apply; None if all apply."""
    try:
        apply(diff, text)
    except HunkMismatchError as error:
        return error
    return None


def _write(patch: Patch, content: bytes, out: Path) -> BuiltPatch:
    path = out / f"{patch.name}_patched.py"
    if not path.is_file() or path.is_symlink() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, mode=0o644)
    return BuiltPatch(
        name=patch.name,
        target=patch.target,
        path=path,
        base_sha256=patch.base_sha256,
        sha256=patch.patched_sha256,
    )
