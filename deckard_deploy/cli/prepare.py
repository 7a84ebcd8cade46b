"""What `up` needs before anything is started: weights, the engine, the release's files."""

import os
import secrets
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Generated, HubRepository, ModelSpec
from deckard_deploy.cli import weights
from deckard_deploy.cli.patched import build_for_docker, build_for_process
from deckard_deploy.cli.state import knowing_home
from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.compose import render_compose
from deckard_deploy.rendering.gateway import render_gateway
from deckard_deploy.rendering.shell import render_command
from deckard_deploy.running.docker import images as docker_images
from deckard_deploy.running.docker.client import DockerEngine
from deckard_deploy.running.docker.runtime import DockerRuntime
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.process import environment, locks
from deckard_deploy.running.releases import COMPOSE, GATEWAY, PLAN, Launch, Release, Releases
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.system.files import remove_folder, writing
from deckard_deploy.weights import lockfile
from deckard_deploy.weights.folder import OURS
from deckard_deploy.weights.strict_json import read_object

Say = Callable[[str], None]


def have_weights(resolved: Resolved, directory: StateDir, say: Say) -> None:
    """Write a generated model; pull what is missing of one on the hub, and look that the rest is as it was.

    Held to ./deckard.lock when it has the model. Raises EnvironmentUnfitError, NetworkError, IntegrityError,
    DeploymentBusyError (weights.pull).
    """
    if resolved.compatibility:
        _have_own_folder(resolved)
        return
    for model in (resolved.model, resolved.drafter):
        if model and model.weights:
            _have_model(model, directory.models / model.name, say)
    if resolved.drafter and resolved.drafter.weights:
        refuse_other_vocabulary(
            directory.models / resolved.model.name, directory.models / resolved.drafter.name
        )


def refuse_other_vocabulary(target: Path, drafter: Path) -> None:
    """vLLM says it of a whole second model after its imports, and of other drafters never. Raises IntegrityError."""
    ours, other = (_vocabulary(folder) for folder in (target, drafter))
    if ours and other and ours != other:  # guard: F60
        raise IntegrityError(
            f"the drafter in {drafter} has a vocabulary of {other} tokens, and the model one of {ours}",
            hint="another --drafter, or --drafter none",
        )


def _vocabulary(folder: Path) -> int | None:
    config = read_object(folder / "config.json")
    text = config.get("text_config", config)
    found = text.get("vocab_size") if isinstance(text, dict) else None
    return found if isinstance(found, int) else None


def _have_own_folder(resolved: Resolved) -> None:
    """Somebody's own launch line mounts a folder of theirs, which we leave alone."""
    with knowing_home():
        folder = Path(resolved.compatibility.model_source if resolved.compatibility else "").expanduser()
    if not (folder / "config.json").is_file():
        weights = resolved.model.weights
        repo = weights.repo if isinstance(weights, HubRepository) else resolved.model.name
        raise EnvironmentUnfitError(
            f"no weights in {folder}", hint=f"hf download {repo} --local-dir {folder}"
        )


def _have_model(model: ModelSpec, folder: Path, say: Say) -> None:
    say(f"weights  {model.name} in {folder}")
    if isinstance(model.weights, Generated):
        from deckard_deploy.rehearsal import assistant, gemma4

        if model.weights.generator == "tiny-assistant":
            assistant.write(folder, kind=model.weights.kind)
        else:
            gemma4.write(folder, quantization=model.quantization)
    else:
        weights.have(model, folder)


def have_engine(plan: LaunchPlan, directory: StateDir, runtime: Runtime, say: Say) -> None:
    """Have the image or the private environment, the patches built from its own files, and the folders for caches.

    Raises EnvironmentUnfitError, NetworkError and IntegrityError.
    """
    if isinstance(runtime, DockerRuntime):
        for image in plan.images:
            _have_image(image, plan.platform, runtime, say)
            hold_to_lock(image, runtime.engine)
        build_for_docker(plan, runtime, say)
    else:
        build_for_process(plan, installed_program(plan, directory, say), say)
    _keep_private(directory.cache)
    stranger = plan.runtime == "docker" and plan.user is None  # a root without capabilities
    for mount in plan.mounts:
        if not mount.read_only:
            _have_cache(Path(mount.source), for_all=stranger)
        elif stranger:
            refuse_private(Path(mount.source))


def refuse_private(folder: Path) -> None:
    """A root without capabilities reads what everyone may, or what is root's own. Raises EnvironmentUnfitError."""
    for path in (folder, *(path for path in folder.rglob("*") if OURS not in path.parts)):
        found = path.stat()
        wanted = 0o5 if stat.S_ISDIR(found.st_mode) else 0o4
        if found.st_uid != 0 and found.st_mode & wanted != wanted:  # guard: F48
            raise EnvironmentUnfitError(
                f"{path} may not be read by others, and the engine's container runs as another user",
                hint=f"chmod -R a+rX {folder}",
            )


def _keep_private(cache: Path) -> None:
    """What an engine compiled it will run again, so nobody else may come to it, wherever the state directory is."""
    with writing(cache):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if cache.stat().st_uid == os.getuid():
            cache.chmod(0o700)


def _have_cache(folder: Path, *, for_all: bool) -> None:
    """A root without capabilities writes only where everyone may; the folder above keeps others out."""
    folder.mkdir(parents=True, exist_ok=True)
    if for_all and folder.stat().st_uid == os.getuid():
        folder.chmod(0o1777)


def hold_to_lock(image: str, engine: DockerEngine) -> None:
    """Nothing where ./deckard.lock does not have the image. Raises IntegrityError when it has another digest here."""
    lock = lockfile.read(lockfile.DEFAULT)
    locked = lock.images.get(image) if lock else None
    if locked is None:
        return
    found = docker_images.digests(engine, image)
    if locked not in found:  # guard: F51
        raise IntegrityError(
            f"{image} is {', '.join(found) or 'from no registry'} here, and {lockfile.DEFAULT} holds it to {locked}",
            hint=f"docker pull {image}; if the tag has moved, review it: deckard-deploy lock --check",
        )


def _have_image(image: str, platform: str | None, runtime: DockerRuntime, say: Say) -> None:
    if docker_images.image_id(runtime.engine, image):
        return
    say(f"image    {image} is not here: pulling it")
    shown = 0

    def on_bytes(done: int, total: int) -> None:
        nonlocal shown
        if total and done * 20 // total > shown:  # every 5 %
            shown = done * 20 // total
            say(f"image    {done / 1e9:.1f} of {total / 1e9:.1f} GB")

    docker_images.pull(runtime.engine, image, platform=platform, on_bytes=on_bytes)


def installed_program(plan: LaunchPlan, directory: StateDir, say: Say) -> Path:
    """The `vllm` of the plan's engine, installed when it is not there yet and is ours to install.

    Raises EnvironmentUnfitError, NetworkError, IntegrityError (running.environment.install).
    """
    lock, folder = library.engine(plan.engine).dependency_lock, directory.engines / plan.engine
    if lock:
        return environment.install(folder, lock=locks.LOCKS[lock], say=say).vllm
    program = folder / "bin" / "vllm"
    if not program.is_file():
        raise EnvironmentUnfitError(
            f"{plan.engine} runs in an environment of your own, and {folder} is none",
            hint=f"ln -sT /path/to/the/venv/with/vllm {folder}",
        )
    return program


def stored_release(plan: LaunchPlan, releases: Releases) -> tuple[Release, Launch]:
    """The release folder of the plan, rendered for a new launch of it."""
    launch_id = f"deckard-launch-{secrets.token_hex(6)}"
    run_from = _run_from(plan, launch_id)
    launch = Launch(
        launch_id=launch_id,
        started_at=datetime.now(UTC).isoformat("T", "seconds"),
        state="starting",
        runtime=plan.runtime,
        base_url=plan.base_url,
        rendered=_said_in(run_from),
    )
    written = {
        PLAN: plan.model_dump_json(indent=1) + "\n",
        "command.txt": render_command(plan, launch_id=launch_id),
    }
    return releases.store(plan.hash, written | run_from), launch


def outdated(release: Release) -> tuple[str, ...]:
    """The files that the recorded launch runs from, as far as this version of the tool says something else in them.

    A plan holds the hashes of its patches and of its plugin, and none of our templates. Raises IntegrityError.
    """
    launch = release.recorded_launch()
    wanted = _said_in(_run_from(release.plan(), launch.launch_id))
    return tuple(name for name, said in wanted.items() if launch.rendered.get(name) != said)


def _run_from(plan: LaunchPlan, launch_id: str) -> dict[str, str]:
    contents = {GATEWAY: render_gateway(plan)} if plan.gateway else {}
    if plan.runtime == "docker":
        contents[COMPOSE] = render_compose(plan, launch_id=launch_id)
    return contents


def _said_in(contents: dict[str, str]) -> dict[str, str]:
    """A hash of each text without its comments: the version of this tool, which stands in one, restarts nothing."""
    return {
        name: sha256(
            "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).encode()
        ).hexdigest()
        for name, text in contents.items()
    }


def remove_generated(directory: StateDir, say: Say) -> None:
    """Remove the models that this tool wrote itself; downloaded ones stay."""
    for name in listing.names("models"):
        folder = directory.models / name
        if isinstance(library.model(name).weights, Generated) and folder.is_dir():
            remove_folder(folder)
            say(f"removed  {folder}")
