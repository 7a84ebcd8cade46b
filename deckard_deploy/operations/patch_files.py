"""The files that this tool builds for a plan, and the proof that the engine uses them.

They are the patched files, the plugin and the filter of requests.
"""

import hashlib
from pathlib import Path, PurePosixPath

from deckard_deploy.catalog import library
from deckard_deploy.errors import IntegrityError
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.patching import attestation, manifest, plugin, request_filter
from deckard_deploy.patching.base_files import BaseFiles, from_package
from deckard_deploy.patching.build import BuiltPatch, build
from deckard_deploy.patching.manifest import Patch, PatchSet
from deckard_deploy.patching.overlay import create_overlay
from deckard_deploy.planning.plan import LaunchPlan, PatchMount
from deckard_deploy.planning.planner import OVERLAY, patch_folder
from deckard_deploy.running.runtime import Runtime

_START_LINES = 5000  # a start writes about 300


def build_patches(plan: LaunchPlan, runtime: Runtime, report: Reporter) -> None:
    """Build the plan's plugin and filter of requests, and its patches from the engine's own files.

    Raises IntegrityError when those files are not the release's, EnvironmentUnfitError.
    """
    _build_plugin(plan, report)
    _build_request_filter(plan)
    if not plan.patches:
        return
    patch_set, patches = patches_of(plan)
    targets = [patch.target for patch in patches]
    files = runtime.vllm_files(plan)
    if files.package:
        base = from_package(Path(files.package), targets)
    elif files.image:
        from deckard_deploy.patching.image_files import from_image  # noqa: PLC0415  the docker SDK

        base = from_image(files.image, targets, endpoint=files.endpoint)
        _require_planned_folder(plan, base, targets[0])
    else:
        return
    built = build(patch_set, base, Path(patch_folder(plan)), patches)
    report.say(f"patches  {', '.join(patch.name for patch in built)} built from the engine's own files")
    if files.package:
        # It goes first on PYTHONPATH.
        create_overlay(Path(files.package), built, Path(patch_folder(plan)) / OVERLAY)


def _require_planned_folder(plan: LaunchPlan, base: BaseFiles, target: str) -> None:
    planned = PurePosixPath(plan.patches[0].target.removesuffix(target)) / "vllm"
    if base.package != planned:
        raise IntegrityError(
            f"vLLM lies in {base.package} in {plan.image}, and the plan mounts over {planned}",
            hint="write an engine file with the right vllm_root",
        )


def _build_plugin(plan: LaunchPlan, report: Reporter) -> None:
    if not plan.plugin or _is_built(plan.plugin):
        return
    if plugin.wheel_sha256(plan.plugin.name) != plan.plugin.sha256:
        raise IntegrityError(
            f"plugin {plan.plugin.name} is not the one that was planned", hint="run `up` again"
        )
    plugin.build(plan.plugin.name, Path(plan.plugin.source))
    report.say(f"plugin   {plan.plugin.name} {plan.plugin.sha256[:12]} built")


def _is_built(mount: PatchMount) -> bool:
    """Return True if the planned file is in its place. An earlier version may have built it from other sources."""
    file = Path(mount.source)
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == mount.sha256


def _build_request_filter(plan: LaunchPlan) -> None:
    if not plan.request_filter or _is_built(plan.request_filter):
        return
    if request_filter.sha256() != plan.request_filter.sha256:
        raise IntegrityError("the filter of requests is not the one that was planned", hint="run `up` again")
    request_filter.build(Path(plan.request_filter.source))


def attest_plugin(plan: LaunchPlan, runtime: Runtime) -> str:
    """Check that each process of the engine uses the plan's plugin. Return the result in one line.

    Raises IntegrityError when one uses another.
    """
    if not plan.plugin:
        return "none needed"
    return plugin.verify_plugin_log(runtime.tail(_START_LINES), plan.plugin.name, plan.plugin.sha256)


def attest(plan: LaunchPlan, runtime: Runtime) -> str:
    """Check that the engine's own Python imports the patched files and the filter. Return the result in one line.

    Raises IntegrityError when it would import other files.
    """
    built = _attested(plan)
    if not built:
        return "none needed"
    output = runtime.run_python(plan, attestation.attestation_argv(built))
    attestation.verify_attestation(output, built)
    return f"{', '.join(patch.name for patch in built)} in use, hashes right"


def _attested(plan: LaunchPlan) -> list[BuiltPatch]:
    """Return the modules of the plan that the engine must import as they were built."""
    patches = patches_of(plan)[1] if plan.patches else []
    built = [
        BuiltPatch(
            name=mount.name,
            target=patch.target,
            path=Path(mount.source),
            base_sha256=patch.base_sha256,
            sha256=mount.sha256,
        )
        for mount, patch in zip(plan.patches, patches, strict=True)
    ]
    if plan.request_filter:
        mount = plan.request_filter
        added = BuiltPatch(
            name=mount.name,
            target=f"{mount.module}.py",
            path=Path(mount.source),
            base_sha256="",  # it replaces no file
            sha256=mount.sha256,
        )
        built.append(added)
    return built


def patches_of(plan: LaunchPlan) -> tuple[PatchSet, list[Patch]]:
    """Return the engine's patch set, and of it the plan's patches in the plan's order."""
    patch_set = manifest.load_patch_set(library.engine(plan.engine).patch_set or plan.engine)
    by_name = {patch.name: patch for patch in patch_set.patches}
    return patch_set, [by_name[mount.name] for mount in plan.patches]
