"""The process runtime's private Python environment: an engine installed by uv from a lock with hashes.

    install()   checks the host, reports the cost, builds the environment, loads the engine, writes the stamp
    remove()    deletes the environment

Only the stamp, which is written last, proves that an environment is complete. An environment without a stamp
is from an interrupted install and is rebuilt. Its downloads are in uv's cache, so that the second try is
short.
"""

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
from deckard_deploy.running.process.uv import Uv, cache_dir, uv_binary
from deckard_deploy.system.byte_lines import GB, ByteLines
from deckard_deploy.system.commands import Say
from deckard_deploy.system.files import nearest_existing, write_atomically

STAMP = "installed.json"
_LAYOUT = 1  # of an environment; a new number makes every older environment be rebuilt


@dataclass(frozen=True)
class Installed:
    """A complete environment. reused: it existed already, and nothing was done."""

    python: Path
    version: str
    torch: str
    reused: bool

    @property
    def vllm(self) -> Path:
        """The path of the `vllm` program."""
        return self.python.with_name("vllm")


def install(engine_env: Path, *, lock: EngineLock, say: Say) -> Installed:
    """Install the engine of `lock` in `engine_env`, a folder that belongs to this tool alone.

    say: receives the progress, one line per call.

    A complete environment of this lock and this Python is returned immediately. A second install waits for
    the first. Raises EnvironmentUnfitError (Python, machine, disk, library, no uv, engine does not load),
    NetworkError, IntegrityError (a wheel differs from the lock) and BadInputError (the folder holds something
    else).
    """
    engine_env = engine_env.absolute()
    if present := _complete(engine_env, lock):
        return present
    _refuse_foreign(engine_env)
    with _locked(engine_env, say) as lock_descriptor:
        if present := _complete(engine_env, lock):
            return present
        _refuse_unfit(lock)
        uv = Uv(uv_binary(), engine_env, lock_descriptor, say)
        route = _select_route(uv, lock)
        say(
            f"installing {lock.noun} into {engine_env}: {route.name}, {route.download_gb:g} GB to download, "
            f"{route.disk_gb:g} GB on disk, about {route.seconds} s on a fast line"
        )
        _refuse_full_disk(engine_env, cache_dir(uv.binary), route, lock.noun)
        return _build(uv, lock, route)


def require_installable(engine_env: Path, lock: EngineLock) -> None:
    """Raise what `install` would raise on this host before its first download; no network is used.

    The disk has to have the space of the cheapest route: which route it will be depends on the network.
    Raises BadInputError, EnvironmentUnfitError.
    """
    engine_env = engine_env.absolute()
    if _complete(engine_env, lock):
        return
    _refuse_foreign(engine_env)
    _refuse_unfit(lock)
    cheapest = min(_routes(lock), key=lambda route: route.disk_gb)
    _refuse_full_disk(engine_env, cache_dir(uv_binary()), cheapest, lock.noun)


def remove(engine_env: Path, *, say: Say) -> None:
    """Delete the environment, if there is one. Its empty lock file stays next to it.

    Raises BadInputError if the folder was not made by `install`.
    """
    engine_env = engine_env.absolute()
    if not engine_env.exists():
        return
    _refuse_foreign(engine_env)
    with _locked(engine_env, say):
        _delete(engine_env)


def _build(uv: Uv, lock: EngineLock, route: TorchRoute) -> Installed:
    _delete(uv.engine_env)
    uv.run("venv", "--quiet", "--python", sys.executable, str(uv.engine_env))
    python = uv.engine_env / "bin" / "python"
    _sync(uv, lock, route, python)
    site_packages = _site_packages(uv.engine_env)
    if lock.distribution:
        _write_distribution(site_packages, *lock.distribution)
    for name, text in route.additions.items():
        _append(site_packages / name, text)
    version = _load_engine(python, lock)
    stamp = _expected_stamp(lock) | {"version": version, "torch": route.name}
    write_atomically(uv.engine_env / STAMP, json.dumps(stamp, indent=2) + "\n", mode=0o644)
    uv.say(f"{lock.noun} loads: version {version}")
    return Installed(python, version, route.name, reused=False)


def _sync(uv: Uv, lock: EngineLock, route: TorchRoute, python: Path) -> None:
    """Download and install the packages of the lock."""
    files = [str(lock.folder / name) for name in ("engine.txt", route.requirements)]
    lines = ByteLines(uv.say, "engine  ")
    total = int(route.disk_gb * GB)
    # Compiled files halve the time of every start: 23 s instead of 40 s to a healthy server, measured.
    options = ("--python", str(python), "--compile-bytecode", "--require-hashes", *route.uv_options)
    try:
        uv.run(
            *("pip", "sync", *options, *files),
            on_bytes=lambda written: lines.show(min(written, total), total),
        )
    except KeyboardInterrupt:
        cache = cache_dir(uv.binary)
        uv.say(f"engine   not installed; the next try uses what is in {cache} (to delete it: uv cache clean)")
        raise


def _complete(engine_env: Path, lock: EngineLock) -> Installed | None:
    """Return the environment if it is complete and matches the lock."""
    stamp_file = engine_env / STAMP
    python = engine_env / "bin" / "python"
    # exists() follows the link to the Python that built the environment.
    if not stamp_file.is_file() or not python.exists():
        return None
    try:
        stamp = json.loads(stamp_file.read_text())
        for key, value in _expected_stamp(lock).items():
            if stamp[key] != value:
                return None
        return Installed(python, stamp["version"], stamp["torch"], reused=True)
    except (ValueError, TypeError, KeyError):  # a damaged stamp, for instance empty after a power failure
        return None


def _expected_stamp(lock: EngineLock) -> dict[str, str | int]:
    digest = hashlib.sha256()
    for file in sorted(lock.folder.glob("*.txt")):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return {"layout": _LAYOUT, "lock": digest.hexdigest(), "python": platform.python_version()}


def _lock_file(engine_env: Path) -> Path:
    return engine_env.with_name(f".{engine_env.name}.lock")


@contextmanager
def _locked(engine_env: Path, say: Say) -> Iterator[int]:
    """Hold the environment's lock, and yield its descriptor.

    uv inherits the descriptor and with it the lock. When an install is killed, its uv still writes, and the
    next install must wait for it. That is why this is flock itself and not the filelock package, whose
    descriptor is private.
    """
    path = _lock_file(engine_env)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another install is at work in {engine_env}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _delete(engine_env: Path) -> None:
    # The stamp goes first, so that a partly deleted environment does not count as complete.
    (engine_env / STAMP).unlink(missing_ok=True)
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
            f"{lock.noun} has no build for Python {platform.python_version()}",
            hint=f"install this program with Python {newest} (uv tool install --python {newest} …), "
            f"or in a checkout: rm -r .venv; PYTHON=python{newest} ./deckard",
        )
    for library, command in lock.libraries.items():
        try:
            ctypes.CDLL(library)
        except OSError as error:
            raise EnvironmentUnfitError(f"{lock.noun} needs {library}: {error}", hint=command) from error


def _select_route(uv: Uv, lock: EngineLock) -> TorchRoute:
    """Return the first route whose index answers within seconds, or the last one, which is not tried."""
    routes = _routes(lock)
    for route in routes[:-1]:
        try:
            uv.probe(lock.folder / route.requirements, route.uv_options)
        except DeployError as error:
            uv.say(f"{route.name} is not reachable ({error.message}); falling back to the next choice")
        else:
            return route
    return routes[-1]


def _routes(lock: EngineLock) -> list[TorchRoute]:
    """Return the routes of this machine. Raises EnvironmentUnfitError if there is none."""
    routes = [route for route in lock.routes if route.machine == platform.machine()]
    if not routes:
        raise EnvironmentUnfitError(
            f"{lock.noun} has no build for a {platform.machine()} machine",
            hint="run it on x86_64 or aarch64, or use the docker runtime",
        )
    return routes


def _refuse_full_disk(engine_env: Path, cache: Path, route: TorchRoute, noun: str) -> None:
    # On one file system, uv links the files of its cache into the environment, so they take space only once.
    folders = {}
    for path in (cache, engine_env):
        folder = nearest_existing(path)
        folders[folder.stat().st_dev] = folder
    for folder in folders.values():
        free_gb = shutil.disk_usage(folder).free / 1e9
        if free_gb < route.disk_gb:
            missing_gb = route.disk_gb - free_gb
            raise EnvironmentUnfitError(
                f"{folder} has {free_gb:.1f} GB free, {noun} takes {route.disk_gb:g} GB",
                hint=f"free {missing_gb:.1f} GB there (what other projects left: uv cache prune)",
            )


def _site_packages(engine_env: Path) -> Path:
    return next((engine_env / "lib").glob("python3.*/site-packages"))


def _write_distribution(site_packages: Path, name: str, version: str) -> None:
    """Write the metadata of a distribution without files, as the installer of a wheel does."""
    folder = site_packages / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "INSTALLER").write_text("deckard-deploy\n")
    record = [f"{folder.name}/{file},,\n" for file in ("METADATA", "INSTALLER", "RECORD")]
    (folder / "RECORD").write_text("".join(record))


def _append(installed: Path, text: str) -> None:
    """Append text to an installed file by a new file, because the old one may be a link into uv's cache."""
    write_atomically(installed, installed.read_text() + text, mode=0o644)


def _load_engine(python: Path, lock: EngineLock) -> str:
    """Run the lock's check in the new environment, and return the last line that it prints."""
    done = subprocess.run([python, "-I", "-B", "-c", lock.check], capture_output=True, text=True, check=False)
    lines = done.stdout.split("\n")[:-1]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise EnvironmentUnfitError(
            f"{lock.noun} was installed but does not load (exit code {done.returncode}): {last}",
            hint=f"see it whole: {python} -c 'import {lock.module}'",
        )
    return lines[-1]
