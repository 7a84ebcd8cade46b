"""The process runtime's private Python environment: an engine installed by uv from a lock with hashes.

    install()   looks at the host, says the cost, builds the environment, proves that it loads, stamps it
    remove()    takes it away

Nothing is believed but the stamp, which is written last: an environment without one is from an install that was cut
off, and is built anew. What was downloaded by then is in uv's cache, so that the second try is short.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deckard_deploy.errors import BadInputError, DeployError, EnvironmentUnfitError
from deckard_deploy.running.process.locks import EngineLock, TorchRoute
from deckard_deploy.running.process.uv import Say, Uv, uv_binary
from deckard_deploy.system.files import nearest_existing, write_atomically

_STAMP = "installed.json"
_LAYOUT = 1  # of an environment; a new number has every older one built anew


@dataclass(frozen=True)
class Installed:
    """An environment that is complete. `reused`: it was there already, nothing was done."""

    python: Path
    version: str
    torch: str
    reused: bool

    @property
    def vllm(self) -> Path:
        """The `vllm` command line."""
        return self.python.with_name("vllm")


def install(engine_env: Path, *, lock: EngineLock, say: Say) -> Installed:
    """Have the engine of `lock` in `engine_env`, a folder that is wholly ours; `say` gets the progress, a line a call.

    A complete environment of this lock and this Python is returned at once. A second install waits for the first.
    Raises EnvironmentUnfitError (Python, machine, disk, library, no uv, engine does not load), NetworkError,
    IntegrityError (a wheel is not the one locked) and BadInputError (the folder holds something else).
    """
    engine_env = engine_env.absolute()
    if present := _complete(engine_env, lock):
        return present
    _refuse_foreign(engine_env)
    with _held(engine_env, say) as holder:
        if present := _complete(engine_env, lock):
            return present
        _refuse_unfit(lock)
        uv = Uv(uv_binary(), engine_env, holder, say)
        route = _route(uv, lock)
        say(
            f"installing the engine into {engine_env}: {route.name}, {route.download_gb:g} GB to download, "
            f"{route.disk_gb:g} GB on disk, about {route.seconds} s on a fast line"
        )
        _refuse_full_disk(engine_env, uv.cache_dir(), route)
        return _build(uv, lock, route)


def remove(engine_env: Path, *, say: Say) -> None:
    """Delete the environment, if there is one; its empty lock file stays, beside it.

    Raises BadInputError if the folder was not made by `install`.
    """
    engine_env = engine_env.absolute()
    if not engine_env.exists():
        return
    _refuse_foreign(engine_env)
    with _held(engine_env, say):
        _delete(engine_env)


def _build(uv: Uv, lock: EngineLock, route: TorchRoute) -> Installed:
    _delete(uv.engine_env)
    uv.run("venv", "--quiet", "--python", sys.executable, str(uv.engine_env))
    python = uv.engine_env / "bin" / "python"
    # Byte-compiling now halves the time of every start: 23 s instead of 40 s to a healthy server, measured.
    files = [str(lock.folder / name) for name in ("engine.txt", route.requirements)]
    uv.run(
        "pip",
        "sync",
        "--python",
        str(python),
        "--compile-bytecode",
        "--require-hashes",
        *route.uv_options,
        *files,
    )
    site_packages = _site_packages(uv.engine_env)
    if lock.distribution:
        _write_distribution(site_packages, *lock.distribution)
    for name, text in route.additions.items():
        _append(site_packages / name, text)
    version = _load(python, lock.check)
    stamp = _expected_stamp(lock) | {"version": version, "torch": route.name}
    write_atomically(uv.engine_env / _STAMP, json.dumps(stamp, indent=2) + "\n", mode=0o644)
    uv.say(f"the engine loads: version {version}")
    return Installed(python, version, route.name, reused=False)


def _complete(engine_env: Path, lock: EngineLock) -> Installed | None:
    stamp_file, python = engine_env / _STAMP, engine_env / "bin" / "python"
    # exists() follows the link to the Python it was made with.
    if not stamp_file.is_file() or not python.exists():
        return None
    with contextlib.suppress(ValueError, TypeError, KeyError):  # empty after a power cut, say: built anew
        stamp = json.loads(stamp_file.read_text())
        if all(stamp[key] == value for key, value in _expected_stamp(lock).items()):
            return Installed(python, stamp["version"], stamp["torch"], reused=True)
    return None


def _expected_stamp(lock: EngineLock) -> dict[str, str | int]:
    digest = hashlib.sha256()
    for file in sorted(lock.folder.glob("*.txt")):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return {"layout": _LAYOUT, "lock": digest.hexdigest(), "python": platform.python_version()}


def _lock_file(engine_env: Path) -> Path:
    return engine_env.with_name(f".{engine_env.name}.lock")


@contextmanager
def _held(engine_env: Path, say: Say) -> Iterator[int]:
    """Hold the environment's lock; yields its descriptor.

    uv inherits the descriptor and with it the lock: when an install is killed, the uv that it leaves behind still
    writes, and the next install must wait for it. (That is why this is flock itself and not the filelock package,
    whose descriptor is private.)
    """
    file = _lock_file(engine_env)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another install is at work in {engine_env}: waiting for it")
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield opened.fileno()


def _delete(engine_env: Path) -> None:
    # First, so that a half deleted environment is not a complete one.
    (engine_env / _STAMP).unlink(missing_ok=True)
    if engine_env.exists():
        shutil.rmtree(engine_env)


def _refuse_foreign(engine_env: Path) -> None:
    if _lock_file(engine_env).exists() or not engine_env.exists() or not any(engine_env.iterdir()):
        return
    raise BadInputError(
        f"{engine_env} was not made by deckard-deploy; it will not be replaced or deleted",
        hint=f"move it away: mv {engine_env} {engine_env}.mine",
    )


def _refuse_unfit(lock: EngineLock) -> None:
    newest = ".".join(map(str, lock.newest_python))
    if sys.version_info[:2] > lock.newest_python:
        raise EnvironmentUnfitError(
            f"the engine has no build for Python {platform.python_version()}",
            hint=f"uv tool install --python {newest} 'deckard-deploy[cpu]'",
        )
    for library, how in lock.libraries.items():
        try:
            ctypes.CDLL(library)
        except OSError as error:
            raise EnvironmentUnfitError(f"the engine needs {library}: {error}", hint=how) from error


def _route(uv: Uv, lock: EngineLock) -> TorchRoute:
    """The first route whose index answers within seconds; the last one is not tried, it is what is left."""
    routes = [route for route in lock.routes if route.machine == platform.machine()]
    if not routes:
        raise EnvironmentUnfitError(
            f"the engine has no build for a {platform.machine()} machine",
            hint="run it on x86_64 or aarch64, or use the docker runtime",
        )
    for route in routes[:-1]:
        try:
            uv.probe(lock.folder / route.requirements, route.uv_options)
        except DeployError as error:
            uv.say(f"{route.name} cannot be had ({error.message}): taking the next choice")
        else:
            return route
    return routes[-1]


def _refuse_full_disk(engine_env: Path, cache: Path, route: TorchRoute) -> None:
    # On one filesystem uv links its cache's files into the environment, and they take their place once.
    folders = {place.stat().st_dev: place for place in map(nearest_existing, (cache, engine_env))}
    for folder in folders.values():
        free_gb = shutil.disk_usage(folder).free / 1e9
        if free_gb < route.disk_gb:
            raise EnvironmentUnfitError(
                f"{folder} has {free_gb:.1f} GB free, the engine takes {route.disk_gb:g} GB",
                hint=f"free {route.disk_gb - free_gb:.1f} GB there (what other projects left: uv cache prune)",
            )


def _site_packages(engine_env: Path) -> Path:
    return next((engine_env / "lib").glob("python3.*/site-packages"))


def _write_distribution(site_packages: Path, name: str, version: str) -> None:
    """Write the metadata of a distribution without files, as a wheel's installer would."""
    folder = site_packages / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "INSTALLER").write_text("deckard-deploy\n")
    (folder / "RECORD").write_text(
        "".join(f"{folder.name}/{file},,\n" for file in ("METADATA", "INSTALLER", "RECORD"))
    )


def _append(installed: Path, text: str) -> None:
    """Put text at the end of an installed file, as a new file: the old one may be a link into uv's cache."""
    write_atomically(installed, installed.read_text() + text, mode=0o644)


def _load(python: Path, check: str) -> str:
    """Run the lock's check in the new environment; returns the last line it prints."""
    done = subprocess.run([python, "-I", "-B", "-c", check], capture_output=True, text=True, check=False)
    lines = done.stdout.split("\n")[:-1]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise EnvironmentUnfitError(
            f"the engine was installed but does not load (exit code {done.returncode}): {last}",
            hint=f"see it whole: {python} -c 'import vllm'",
        )
    return lines[-1]
