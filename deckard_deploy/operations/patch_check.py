"""`patches`: the base files of an engine against a patch set, and the patches that a choice needs."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_cache_path

from deckard_deploy.catalog.specs import LM_HEAD_NAMES, LmHead
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.patches import needed_patches
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.patching import manifest, overlay, plugin, request_filter, wheel
from deckard_deploy.patching.base_file_sources import Source, find_base_files
from deckard_deploy.patching.base_files import BaseFiles
from deckard_deploy.patching.build import (
    BuiltPatch,
    PatchVerdict,
    build,
    check,
    check_release,
    import_built,
)
from deckard_deploy.patching.manifest import Patch, PatchSet, load_patch_set

RELEASES = ("0.19.0", "0.19.1", "0.20.2", "0.24.0", "0.33.0")


# `image`, `package` and `wheel`, as the options name them; see base_file_sources.Source.
NamedSource = Mapping[str, str | None]


class Variant(NamedTuple):
    """The kind of plan that patches are chosen for."""

    drafter: bool
    quantization: str


def find_patch_set(name: str) -> PatchSet:
    """Return the patch set of that name. Raises BadInputError."""
    return load_patch_set(name)


def needed_by(choice: Choice, patch_set: PatchSet, report: Reporter) -> frozenset[str]:
    """Return the names of the patches that a choice needs; none if its engine has another patch set."""
    resolved = resolve_choice(choice, report)
    if resolved.engine.patch_set != patch_set.name:
        return frozenset()
    return frozenset(patch.name for patch in needed_patches(resolved))


def named_patches(patch_set: PatchSet, names: Sequence[str]) -> tuple[Patch, ...]:
    """Return the patches with these names; all of the set without a name. Raises BadInputError."""
    known = {patch.name: patch for patch in patch_set.patches}
    for name in names:
        if name not in known:
            raise BadInputError(f"no patch named {name[:80]!r}; known: {', '.join(known)}")
    return tuple(known[name] for name in names) or patch_set.patches


def check_source(
    patch_set: PatchSet, source: NamedSource, variant: Variant, report: Reporter
) -> tuple[str, tuple[PatchVerdict, ...]]:
    """Return the origin of the base files, and the verdicts on the variant's patches."""
    base = base_files(patch_set, source, report)
    return base.origin, check(patch_set, base, drafter=variant.drafter, quantization=variant.quantization)


def check_needed(choice: Choice, report: Reporter) -> tuple[str, tuple[PatchVerdict, ...]]:
    """Return the verdicts on the patches that a choice needs, against the wheel of its engine's release.

    No docker is needed, so that CI can check a deckard.yaml. Raises the errors of `check_wheel_of`.
    """
    resolved = resolve_choice(choice, report)
    engine = resolved.engine
    if engine.patch_set is None:
        return f"{engine.name}, which needs no patch", ()
    origin, verdicts = check_wheel_of(load_patch_set(engine.patch_set), engine.vllm_version, report)
    needed = {patch.name for patch in needed_patches(resolved)}
    return origin, tuple(verdict for verdict in verdicts if verdict.name in needed)


def check_wheel_of(
    patch_set: PatchSet, release: str, report: Reporter
) -> tuple[str, tuple[PatchVerdict, ...]]:
    """Return the wheel of a vLLM release, and the verdicts on all patches.

    Raises BadInputError, NetworkError.
    """
    if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}", release):
        raise BadInputError(f"release {release!r}: a version such as 0.19.1 was expected")
    report.say(f"reading  the wheel of vLLM {release} (the package index, or the cache)")
    targets = [patch.target for patch in patch_set.patches]
    base = wheel.from_wheel(wheel.release_wheel(release), targets, missing_ok=True)
    return base.origin, check_release(patch_set, base, release)


def matrix(
    patch_set: PatchSet, releases: Sequence[str], report: Reporter
) -> Iterator[tuple[str, tuple[PatchVerdict, ...]]]:
    """Yield each release with the verdict of every patch, read from the releases' wheels."""
    for release in releases or RELEASES:
        origin, verdicts = check_wheel_of(patch_set, release, report)
        report.say(f"{release}: {origin}")
        yield release, verdicts


def build_files(
    patch_set: PatchSet, source: NamedSource, variant: Variant, output: Path, report: Reporter
) -> tuple[BuiltPatch, ...]:
    """Write the patched files of the variant into `output`. Raises IntegrityError for a foreign base file."""
    chosen = manifest.needed_patches(patch_set, drafter=variant.drafter, quantization=variant.quantization)
    return build(patch_set, base_files(patch_set, source, report), output, chosen)


def build_overlay(built: Sequence[BuiltPatch], package: Path, output: Path) -> Path:
    """Link the rest of an installed vllm package around the patched files. Return the overlay's folder."""
    overlay.create_overlay(package, tuple(built), output / "overlay")
    return output / "overlay"


def import_files(built: Sequence[BuiltPatch], python: Path, overlay_folder: Path) -> None:
    """Import the patched modules with that Python. Raises IntegrityError when one does not import."""
    import_built(tuple(built), python, overlay_folder)


def build_wheel(output: Path, lm_head: LmHead | None = None) -> dict[str, str]:
    """Write the plugin's wheel into `output`. Return its name, SHA-256 and path.

    lm_head: the format to which it quantizes lm_head too.
    """
    name = LM_HEAD_NAMES[lm_head] if lm_head else plugin.NAME
    path = plugin.build(name, output / plugin.WHEEL)
    return {"name": name, "sha256": plugin.wheel_sha256(name), "path": str(path)}


def build_request_filter(output: Path) -> dict[str, str]:
    """Write the filter of requests into `output`. Return its name, SHA-256 and path."""
    path = request_filter.build(output / request_filter.FILE)
    return {"name": request_filter.NAME, "sha256": request_filter.sha256(), "path": str(path)}


def base_files(patch_set: PatchSet, source: NamedSource, report: Reporter) -> BaseFiles:
    """Read the engine's own files from the source, or from the nearest place if it names none."""
    endpoint = None
    if source.get("image"):
        from deckard_deploy.running.docker.client import DockerClient  # noqa: PLC0415  the docker SDK

        # The engine that `up` uses, by the current docker context as well.
        endpoint = DockerClient(environment=dict(os.environ), say=report.command).endpoint
    cache = user_cache_path("deckard-deploy") / "bases"
    return find_base_files(patch_set, Source(**source, endpoint=endpoint), cache=cache)
