"""Which patches a plan needs. Apart from building them, because `render` must start quickly."""

from pathlib import PurePosixPath

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.patching import manifest, plugin
from deckard_deploy.patching.manifest import Patch
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import PatchedFile, with_patches, with_plugin

# The process runtime has no image: its overlay holds the package under this name.
_NO_IMAGE = "/vllm"


def needed_patches(resolved: Resolved) -> tuple[Patch, ...]:
    """The patches of the engine's set that the choice needs; none when there is no set, or for somebody's own line."""
    engine = resolved.engine
    if engine.patch_set is None or resolved.compatibility:
        return ()
    return manifest.needed(
        manifest.load_patch_set(engine.patch_set),
        drafter=resolved.drafter is not None or "speculative-config" in resolved.serve,
        quantization=resolved.model.quantization,
    )


def needed_plugin(resolved: Resolved) -> str | None:
    """The engine's plugin, when the checkpoint's format is one that the release does not know."""
    return (
        None
        if resolved.compatibility or not plugin.serves(resolved.model.quantization)
        else resolved.engine.plugin
    )


def patched(plan: LaunchPlan, resolved: Resolved, root: PurePosixPath) -> LaunchPlan:
    """The plan with the patches and the plugin that it needs."""
    if name := needed_plugin(resolved):
        plan = with_plugin(plan, name, wheel=plugin.WHEEL, sha256=plugin.sha256_of(name), root=root)
    needed = needed_patches(resolved)
    files = [
        PatchedFile(name=patch.name, target=patch.target, sha256=patch.patched_sha256) for patch in needed
    ]
    return with_patches(plan, files, root=root, vllm_root=resolved.engine.vllm_root or _NO_IMAGE)
