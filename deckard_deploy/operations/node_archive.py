"""The archive of this tool for a node: the package, its data, and its dependencies in pure Python.

Accelerators that a library can do without are left out. pydantic has no form without its compiled core, so that
the archive is for one kind of machine and one Python: the core of this installation if both are the same, else
that version's wheel from the package index, by pip as the user has configured it.
"""

import importlib.metadata
import io
import os
import platform
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from platformdirs import user_cache_path

from deckard_deploy.errors import NetworkError
from deckard_deploy.resources import PACKAGE, patches_dir, plugins_dir, templates_dir
from deckard_deploy.system.commands import Say, last_output_line, run

CORE = "pydantic-core"
# huggingface_hub downloads without hf-xet, and this tool has its own transfer (weights/transfer.py).
WITHOUT = {"deckard-deploy", "hf-xet", CORE}
LAUNCHER = "deckard_node.py"
_SKIPPED = {".so", ".pyc", ".pyi"}
_DOWNLOAD_S = 120.0


def build(version: str, machine: str, say: Say) -> bytes:
    """Return the archive for a Python version and a machine: the same bytes each time. Raises NetworkError."""
    files = dict(_own_files())
    for name in _dependencies():
        files.update(_distribution_files(name))
    files.update(_core_files(version, machine, say))
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def _own_files() -> Iterator[tuple[str, bytes]]:
    yield LAUNCHER, (PACKAGE / "cli" / "on_node.py").read_bytes()
    parts = {PACKAGE: "deckard_deploy"}
    for folder in (templates_dir(), patches_dir(), plugins_dir()):
        parts[folder] = f"deckard_deploy/{folder.name}"
    for folder, name in parts.items():
        for file in folder.rglob("*"):
            if file.is_file() and file.suffix != ".pyc":
                yield f"{name}/{file.relative_to(folder)}", file.read_bytes()


def _dependencies() -> set[str]:
    """Return the normalized names of what the package requires, directly or not, without extras."""
    found: set[str] = set()
    waiting = ["deckard-deploy"]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(re.sub(r"[-_.]+", "-", needed.name).lower())
    return found - WITHOUT


def _distribution_files(name: str, *, compiled: bool = False) -> Iterator[tuple[str, bytes]]:
    for file in importlib.metadata.distribution(name).files or ():
        skipped = file.suffix in _SKIPPED and not (compiled and file.suffix == ".so")
        metadata = file.parts[0].endswith(".dist-info") and file.name != "METADATA"
        if ".." not in file.parts and not file.is_absolute() and not skipped and not metadata:
            yield str(file), file.read_binary()


def _core_files(version: str, machine: str, say: Say) -> Iterator[tuple[str, bytes]]:
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if (version, machine) == (here, platform.machine()):
        yield from _distribution_files(CORE, compiled=True)
        return
    wheel = _core_wheel(version, machine, say)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith("/"):
                yield name, archive.read(name)


def _core_wheel(version: str, machine: str, say: Say) -> Path:
    release = importlib.metadata.version(CORE)
    folder = user_cache_path("deckard-deploy") / "wheels" / f"{release}-{version}-{machine}"
    found = list(folder.glob("*.whl"))
    if found:
        return found[0]
    target = (f"--python-version={version}", f"--platform=manylinux2014_{machine}", "--implementation=cp")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as new:
        argv = (
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *(*target, f"--dest={new}", f"{CORE}=={release}"),
        )
        done = run(argv, environment=os.environ, say=say, timeout_s=_DOWNLOAD_S)
        # Whole or not at all: a download that was cut is not found the next time.
        for wheel in Path(new).glob("*.whl"):
            wheel.rename(folder / wheel.name)
    found = list(folder.glob("*.whl"))
    if done.returncode != 0 or not found:
        raise NetworkError(
            f"{CORE} {release} for Python {version} on {machine} was not downloaded: "
            f"{last_output_line(done.stderr)}",
            hint=f"put its wheel into {folder}",
        )
    return found[0]
