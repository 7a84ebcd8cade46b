"""The patches of a plan on this host: their files, and the proof that the engine uses them."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from deckard_deploy.catalog import library
from deckard_deploy.errors import IntegrityError, StartFailedError
from deckard_deploy.patching import attestation, manifest, plugin
from deckard_deploy.patching import build as builds
from deckard_deploy.patching.base_files import BaseFiles, from_image, from_package
from deckard_deploy.patching.manifest import Patch, PatchSet
from deckard_deploy.patching.overlay import overlay
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import OVERLAY, patch_folder
from deckard_deploy.running.docker.runtime import DockerRuntime
from deckard_deploy.running.runtime import Runtime

Say = Callable[[str], None]
_START_LINES = 5000  # a start writes about 300


def build_for_process(plan: LaunchPlan, program: Path, say: Say) -> None:
    """Build the plan's patches from the installed engine, and the overlay that goes first on PYTHONPATH.

    Raises IntegrityError when the installed files are not the release's.
    """
    _have_plugin(plan, say)
    if not plan.patches:
        return
    (package,) = program.parents[1].glob("lib/python3*/site-packages/vllm")
    built = _build(plan, from_package(package, _targets(plan)), say)
    overlay(package, built, Path(patch_folder(plan)) / OVERLAY)


def build_for_docker(plan: LaunchPlan, runtime: DockerRuntime, say: Say) -> None:
    """Build the plan's patches from the image's own files. Raises IntegrityError when they are not the release's."""
    _have_plugin(plan, say)
    if not plan.patches or plan.image is None:
        return
    targets = _targets(plan)
    base = from_image(plan.image, targets, endpoint=runtime.engine.endpoint)
    planned = PurePosixPath(plan.patches[0].target.removesuffix(targets[0])) / "vllm"
    if base.package != planned:
        raise IntegrityError(
            f"vLLM lies in {base.package} in {plan.image}, and the plan mounts over {planned}",
            hint="write an engine file with the right vllm_root",
        )
    _build(plan, base, say)


def _have_plugin(plan: LaunchPlan, say: Say) -> None:
    if not plan.plugin:
        return
    if plugin.sha256_of(plan.plugin.name) != plan.plugin.sha256:
        raise IntegrityError(
            f"plugin {plan.plugin.name} is not the one that was planned", hint="run `up` again"
        )
    plugin.build(plan.plugin.name, Path(plan.plugin.source))
    say(f"plugin   {plan.plugin.name} {plan.plugin.sha256[:12]} built")


def attest_plugin(plan: LaunchPlan, runtime: Runtime) -> str:
    """What each process of the engine said of the plugin, in one line. Raises IntegrityError when one has another."""
    return plugin.judge_log(runtime.tail(_START_LINES), plan.plugin.sha256) if plan.plugin else "none needed"


def attest(plan: LaunchPlan, runtime: Runtime, program: Callable[[LaunchPlan], Path]) -> str:
    """Ask the engine's own Python whether it imports our files; a line that says so.

    Raises IntegrityError when it would import anything else.
    """
    if not plan.patches:
        return "none needed"
    built = [
        builds.BuiltPatch(
            name=mount.name,
            target=patch.target,
            path=Path(mount.source),
            base_sha256=patch.base_sha256,
            sha256=mount.sha256,
        )
        for mount, patch in zip(plan.patches, _chosen(plan)[1], strict=True)
    ]
    if isinstance(runtime, DockerRuntime):
        output = _inside(runtime, attestation.attestation_argv(built))
    else:
        output = _beside(
            plan, attestation.attestation_argv(built, python=str(program(plan).with_name("python")))
        )
    attestation.judge(output, built)
    return f"{', '.join(patch.name for patch in built)} in use, hashes right"


def _build(plan: LaunchPlan, base: BaseFiles, say: Say) -> tuple[builds.BuiltPatch, ...]:
    patch_set, chosen = _chosen(plan)
    built = builds.build(patch_set, base, Path(patch_folder(plan)), chosen)
    say(f"patches  {', '.join(patch.name for patch in built)} built from the engine's own files")
    return built


def _targets(plan: LaunchPlan) -> list[str]:
    return [patch.target for patch in _chosen(plan)[1]]


def _chosen(plan: LaunchPlan) -> tuple[PatchSet, list[Patch]]:
    """The engine's patch set, and of it the plan's patches in the plan's order."""
    patch_set = manifest.load_patch_set(library.engine(plan.engine).patch_set or plan.engine)
    by_name = {patch.name: patch for patch in patch_set.patches}
    return patch_set, [by_name[mount.name] for mount in plan.patches]


def _inside(runtime: DockerRuntime, argv: tuple[str, ...]) -> str:
    """Raises StartFailedError when the container is gone, EnvironmentUnfitError when it runs no more."""
    from docker.errors import NotFound

    api, seen = runtime.engine.api, runtime.observe()
    try:
        with runtime.engine.asking():
            made = api.exec_create(seen.instance_id, list(argv))
            return str(api.exec_start(made["Id"]).decode(errors="replace"))
    except NotFound as error:
        raise StartFailedError("its container is gone", hint="deckard-deploy logs") from error


def _beside(plan: LaunchPlan, argv: tuple[str, ...]) -> str:
    """The server's environment and a Python of the same installation: what it would import is what the server did."""
    environment = {"PATH": os.environ.get("PATH", ""), **plan.environment}
    done = subprocess.run(argv, env=environment, cwd="/", capture_output=True, text=True, check=False)
    return done.stdout or done.stderr
