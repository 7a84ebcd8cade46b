"""The patches, the plugin and the filter of requests that a plan needs.

Nothing is built here, so that `render` starts quickly.
"""

from pathlib import PurePosixPath

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import LM_HEAD_NAMES
from deckard_deploy.patching import manifest, plugin, request_filter
from deckard_deploy.patching.manifest import Patch
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import PatchedFile, with_patches, with_plugin, with_request_filter

# The process runtime has no image: its overlay holds the package under this name.
_NO_IMAGE = "/vllm"


def needed_patches(resolved: Resolved) -> tuple[Patch, ...]:
    """Return the patches of the engine's set that the choice needs.

    An engine without a patch set needs none, nor does a launch line of the user's own (--compat).
    """
    engine = resolved.engine
    if engine.patch_set is None or resolved.compatibility:
        return ()
    return manifest.needed_patches(
        manifest.load_patch_set(engine.patch_set),
        drafter=resolved.drafter is not None or "speculative-config" in resolved.serve,
        quantization=resolved.model.quantization,
    )


def needed_plugin(resolved: Resolved) -> str | None:
    """Return the engine's plugin if the release does not know the checkpoint's format, or the one for lm_head."""
    engine = resolved.engine
    if resolved.lm_head:
        return LM_HEAD_NAMES[resolved.lm_head]
    if resolved.compatibility or not plugin.is_needed_for(resolved.model.quantization, gpu=engine.gpu):
        return None
    return engine.plugin


def with_needed_patches(plan: LaunchPlan, resolved: Resolved, root: PurePosixPath) -> LaunchPlan:
    """Return the plan with the patches, the plugin and the filter of requests that it needs.

    root: the folder of patches on the host. A launch line of the user's own (--compat) gets none.
    """
    name = needed_plugin(resolved)
    if name:
        plan = with_plugin(plan, name, wheel=plugin.WHEEL, sha256=plugin.wheel_sha256(name), root=root)
    files = [
        PatchedFile(name=patch.name, target=patch.target, sha256=patch.patched_sha256)
        for patch in needed_patches(resolved)
    ]
    plan = with_patches(plan, files, root=root, vllm_root=resolved.engine.vllm_root or _NO_IMAGE)
    if resolved.compatibility:
        return plan
    return with_request_filter(plan, request_filter.FILE, sha256=request_filter.sha256(), root=root)
