"""Patched files: base checked by hash, diff applied exactly, result checked by hash and compiled."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from deckard_deploy.errors import IntegrityError
from deckard_deploy.patching.base_files import BaseFiles
from deckard_deploy.patching.manifest import Patch, PatchSet, as_numbers, is_needed, sha256
from deckard_deploy.patching.release_hashes import looks_like
from deckard_deploy.patching.unified_diff import HunkMismatchError, apply, reverse
from deckard_deploy.system.files import write_atomically

_NEXT = "deckard-deploy patches check"


@dataclass(frozen=True, kw_only=True)
class BuiltPatch:
    """A patched file on this host, and what it replaces."""

    name: str
    target: str
    path: Path
    base_sha256: str
    sha256: str

    @property
    def module(self) -> str:
        """The dotted name under which Python imports it."""
        return self.target.removesuffix(".py").replace("/", ".")


class Verdict(Enum):
    """What a patch is to a file."""

    APPLIES = "applies"
    APPLIED = "already applied"
    UPSTREAM = "already upstream"
    NEEDLESS = "not needed by this plan"
    CONFLICTS = "conflicts"
    OTHER_BASE = "other base file"


@dataclass(frozen=True, kw_only=True)
class PatchVerdict:
    """One patch against one file; `detail` says more where there is more, `found` what the file looks like."""

    name: str
    target: str
    verdict: Verdict
    detail: str = ""
    found: str = ""

    @property
    def fits(self) -> bool:
        """Whether a deployment can go on."""
        return self.verdict not in (Verdict.CONFLICTS, Verdict.OTHER_BASE)


def build(
    patch_set: PatchSet, base: BaseFiles, out: Path, patches: Iterable[Patch] | None = None
) -> tuple[BuiltPatch, ...]:
    """Write the patched files into `out`, each as NAME_patched.py.

    patches: which ones; all of the set when not given. A file that is there already with the right content keeps its
    inode, because a running container has it mounted. Raises IntegrityError; then nothing of it was written.
    """
    chosen = tuple(patch_set.patches if patches is None else patches)
    results = [(patch, patched_text(patch_set, patch, base)) for patch in chosen]
    return tuple(_write(patch, text.encode(), out) for patch, text in results)


def patched_text(patch_set: PatchSet, patch: Patch, base: BaseFiles) -> str:
    """The patched module. Raises IntegrityError when base, diff or result is not what the manifest says."""
    content = base.files[patch.target]
    digest = sha256(content)
    if digest != patch.base_sha256:
        raise IntegrityError(
            f"{patch.target} in {base.origin} is {looks_like(patch.target, digest)}; "
            f"patch {patch.name} is for vLLM {patch_set.vllm}",
            hint=_NEXT,
        )
    text = apply(patch_set.diff(patch), content.decode())
    if sha256(text.encode()) != patch.patched_sha256:
        raise IntegrityError(
            f"patch {patch.name} gives {sha256(text.encode())[:12]}…, not what its manifest says"
        )
    try:
        compile(text, patch.target, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise IntegrityError(f"{patch.target} does not compile after patch {patch.name}: {error}") from error
    return text


def check(
    patch_set: PatchSet, base: BaseFiles, *, drafter: bool, quantization: str
) -> tuple[PatchVerdict, ...]:
    """What each patch of the set is to these files, for a plan with or without a drafter and this quantization."""
    return tuple(
        _verdict(patch_set, patch, base)
        if is_needed(patch, drafter=drafter, quantization=quantization)
        else PatchVerdict(name=patch.name, target=patch.target, verdict=Verdict.NEEDLESS)
        for patch in patch_set.patches
    )


def check_release(patch_set: PatchSet, base: BaseFiles, version: str) -> tuple[PatchVerdict, ...]:
    """The same for the files of another release, where a patch can be superfluous."""
    return tuple(
        PatchVerdict(
            name=patch.name,
            target=patch.target,
            verdict=Verdict.UPSTREAM,
            detail=f"since {patch.not_needed_from}",
        )
        if patch.not_needed_from and as_numbers(version) >= as_numbers(patch.not_needed_from)
        else _verdict(patch_set, patch, base)
        for patch in patch_set.patches
    )


def import_built(built: Sequence[BuiltPatch], python: Path, overlay: Path) -> None:
    """Import the patched modules with a Python that has vLLM. Takes ten seconds or more, because torch is imported.

    overlay: as made by `overlay.overlay`. Raises IntegrityError with the import's last line.
    """
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    argv = (str(python), "-P", "-c", code, *(patch.module for patch in built))
    done = subprocess.run(
        argv, env={**os.environ, "PYTHONPATH": str(overlay)}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise IntegrityError(f"the patched vLLM does not import with {python}: {reason}")


def _verdict(patch_set: PatchSet, patch: Patch, base: BaseFiles) -> PatchVerdict:
    content = base.files[patch.target]
    digest = sha256(content)
    diff = patch_set.diff(patch)

    def says(verdict: Verdict, detail: str = "") -> PatchVerdict:
        found = "" if digest == patch.base_sha256 else looks_like(patch.target, digest)
        return PatchVerdict(name=patch.name, target=patch.target, verdict=verdict, detail=detail, found=found)

    if digest == patch.base_sha256:
        return says(Verdict.APPLIES)
    text = content.decode(errors="replace")
    try:
        apply(reverse(diff), text)
    except HunkMismatchError:
        pass  # the usual case: the file does not hold our changes
    else:
        return says(Verdict.APPLIED)
    try:
        apply(diff, text)
    except HunkMismatchError as error:
        return says(Verdict.CONFLICTS, f"hunk {error.number} of {len(diff.hunks)}, line {error.line}")
    return says(Verdict.OTHER_BASE, "every hunk fits, but the rest of the file is another")


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
