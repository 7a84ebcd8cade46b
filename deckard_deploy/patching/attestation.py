"""The proof, read from inside the environment that serves, that our files are the ones Python imports there.

A bind mount to a path that the image does not have makes docker create that path and start happily with the original
file; a replaced host file leaves the container on the old one; bytecode of the original can win over a new source.
Only the interpreter in the container can say what it would import.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from deckard_deploy.errors import IntegrityError
from deckard_deploy.patching.build import BuiltPatch
from deckard_deploy.patching.release_hashes import looks_like

# Runs in the engine's Python, 3.10 or later, with nothing but the standard library. It asks the import system where
# each module would come from without importing it, because importing vLLM takes ten seconds. `flags` are the bytecode
# file's (PEP 552): 1 means that Python takes it without a look at the source.
_SCRIPT = r"""
import hashlib, importlib.machinery, importlib.util, json, os, sys
sys.path[:] = [entry for entry in sys.path if entry]
def spec_of(name):
    places = sys.path
    for part in name.split("."):
        spec = importlib.machinery.PathFinder.find_spec(part, places)
        if spec is None:
            return None
        if spec.origin is None:  # a folder without __init__.py
            places = [path for path in (os.path.join(place, part) for place in places) if os.path.isdir(path)]
        else:
            places = spec.submodule_search_locations
    return spec
found = {}
for name in sys.argv[1:]:
    spec = spec_of(name)
    path = spec.origin if spec else None
    entry = {"path": path, "realpath": None, "sha256": None, "flags": 0}
    if path and os.path.isfile(path):
        entry["realpath"] = os.path.realpath(path)
        with open(path, "rb") as file:
            entry["sha256"] = hashlib.sha256(file.read()).hexdigest()
        bytecode = importlib.util.cache_from_source(path)
        if os.path.isfile(bytecode):
            with open(bytecode, "rb") as file:
                entry["flags"] = int.from_bytes(file.read(8)[4:], "little")
    found[name] = entry
print(json.dumps({"python": list(sys.version_info[:2]), "modules": found}))
"""
_UNCHECKED_BYTECODE = 1


@dataclass(frozen=True, kw_only=True)
class Attested:
    """A patched module as the engine's Python sees it."""

    name: str
    path: str
    sha256: str


def attestation_argv(built: Sequence[BuiltPatch], python: str = "python3") -> tuple[str, ...]:
    """What to run in the container or the environment, as `docker exec` or a child process takes it."""
    return (python, "-c", _SCRIPT, *(patch.module for patch in built))


def judge(output: str, built: Sequence[BuiltPatch]) -> tuple[Attested, ...]:
    """Check that each built file is what the engine would import; the script's `output` says.

    Raises IntegrityError that names the first module that is not ours, what is there instead, and how many more.
    """
    try:
        answer = json.loads(output.strip().splitlines()[-1])
        modules, python = dict(answer["modules"]), "{}.{}".format(*answer["python"])
        entries = [(patch, dict(modules[patch.module])) for patch in built]
        faults = [fault for patch, entry in entries if (fault := _fault(patch, entry, python))]
    except (ValueError, LookupError, TypeError) as error:
        raise IntegrityError(
            f"no attestation came back: {output.strip()[:120]!r}", hint="look at the logs"
        ) from error
    if faults:
        more = f" (and {len(faults) - 1} more)" if faults[1:] else ""
        raise IntegrityError(f"{faults[0]}{more}", hint="deckard-deploy down, then up")
    return tuple(
        Attested(name=patch.name, path=entry["realpath"], sha256=entry["sha256"]) for patch, entry in entries
    )


def _fault(patch: BuiltPatch, entry: dict[str, object], python: str) -> str | None:
    path, digest = entry["path"], entry["sha256"]
    if path is None:
        return f"{patch.module} cannot be imported by Python {python}: no such module, or a folder is in its place"
    if digest is None:
        return f"{path} is not a regular file"
    if digest != patch.sha256:  # guard: F50
        return _other_file(patch, str(path), str(digest), python)
    if entry["flags"] == _UNCHECKED_BYTECODE:
        return f"Python {python} would run the old bytecode of {path} without a look at patch {patch.name}"
    return None


def _other_file(patch: BuiltPatch, path: str, digest: str, python: str) -> str:
    if digest == patch.base_sha256:
        return f"the original {path} is in use, not patch {patch.name}: it was mounted somewhere else (Python {python})"
    if PurePosixPath(path).name == "__init__.py":
        return (
            f"{path} is imported in place of patch {patch.name}: a package of the same name stands before it"
        )
    return f"{path} is {looks_like(patch.target, digest)}, not patch {patch.name}"
