"""The proof, made inside the serving environment, that the engine imports the patched files.

Three things can go wrong unnoticed. If the image does not have the path of a bind mount, docker creates it
and starts with the original file. If a file on the host is replaced, the container keeps the old one.
Bytecode of the original can win over a new source. Only the interpreter in the container knows what it would
import.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from deckard_deploy.errors import IntegrityError
from deckard_deploy.patching.build import BuiltPatch
from deckard_deploy.patching.release_hashes import describe_file

# Runs in the engine's Python, 3.10 or later, with only the standard library. It asks the import system for
# the origin of each module without importing it, because importing vLLM takes ten seconds. `flags` are those
# of the bytecode file (PEP 552): 1 means that Python uses the bytecode without checking the source.
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
class AttestedModule:
    """A patched module as the engine's Python would import it; `path` is the real path."""

    name: str
    path: str
    sha256: str


def attestation_argv(built: Sequence[BuiltPatch]) -> tuple[str, ...]:
    """Return the arguments of the engine's Python that print what it would import."""
    return ("-c", _SCRIPT, *(patch.module for patch in built))


def verify_attestation(output: str, built: Sequence[BuiltPatch]) -> tuple[AttestedModule, ...]:
    """Verify, from the output of the attestation command, that the engine would import each built file.

    Raises IntegrityError that names the first other module, its file, and the number of further ones.
    """
    faults = []
    try:
        answer = json.loads(output.strip().splitlines()[-1])
        modules = dict(answer["modules"])
        python = "{}.{}".format(*answer["python"])
        entries = [(patch, dict(modules[patch.module])) for patch in built]
        for patch, entry in entries:
            fault = _fault(patch, entry, python)
            if fault is not None:
                faults.append(fault)
    except (ValueError, LookupError, TypeError) as error:
        raise IntegrityError(
            f"no attestation was returned: {output.strip()[:120]!r}", hint="look at the logs"
        ) from error
    if faults:
        message = faults[0]
        if len(faults) > 1:
            message += f" (and {len(faults) - 1} more)"
        raise IntegrityError(message, hint="deckard-deploy down, then: deckard-deploy up")
    attested = []
    for patch, entry in entries:
        attested.append(
            AttestedModule(name=patch.name, path=entry["realpath"], sha256=entry["sha256"]),
        )
    return tuple(attested)


def _fault(patch: BuiltPatch, entry: dict[str, object], python: str) -> str | None:
    """Return why the module is not the patched file; None if it is."""
    path, digest = entry["path"], entry["sha256"]
    if path is None:
        reason = "no such module, or a folder is in its place"
        return f"{patch.module} cannot be imported by Python {python}: {reason}"
    if digest is None:
        return f"{path} is not a regular file"
    if digest != patch.sha256:  # guard: F50
        return _describe_other_file(patch, str(path), str(digest), python)
    if entry["flags"] == _UNCHECKED_BYTECODE:
        return f"Python {python} would run the old bytecode of {path} without a look at patch {patch.name}"
    return None


def _describe_other_file(patch: BuiltPatch, path: str, digest: str, python: str) -> str:
    if digest == patch.base_sha256:
        reason = f"it was mounted somewhere else (Python {python})"
        return f"the original {path} is in use, not patch {patch.name}: {reason}"
    if PurePosixPath(path).name == "__init__.py":
        reason = "a package of the same name stands before it"
        return f"{path} is imported in place of patch {patch.name}: {reason}"
    return f"{path} is {describe_file(patch.target, digest)}, not patch {patch.name}"
