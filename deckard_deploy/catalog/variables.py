"""Environment variables of the libraries under vLLM: which are read, which are refused, and what one costs.

Their names were read from the libraries' own files (schemas/library-variables.json), or stand in variables.yaml with
their documentation. The files are read only for a variable that neither vLLM's schema nor the engine lists.
"""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from deckard_deploy.catalog.specs import Environment
from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir
from deckard_deploy.system.suggestion import closest

# Names of libraries' folders for compiled code: a container mounts its cache where the variable says.
MOUNTED_CACHES = ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE")
# Folders without a mount of their own.
_OTHER_CACHES = (
    "TORCHINDUCTOR_CACHE_DIR",
    "CUDA_CACHE_PATH",
    "NUMBA_CACHE_DIR",
    "TVM_FFI_CACHE_DIR",
    "HF_HOME",
    "HF_HUB_CACHE",
    "TRANSFORMERS_CACHE",
    "XDG_CACHE_HOME",
    "TRITON_HOME",
    "TORCH_EXTENSIONS_DIR",
    "TMPDIR",
)
_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|SECRET_KEY|CREDENTIALS)(_ID)?$"
)
_PROXY = re.compile(r"(?i)(http|https|all)_proxy")
# The folders that a mount must not hide: the image's programs, the plan's models and patches.
_IMAGE_FOLDERS = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib64",
    "models",
    "opt",
    "proc",
    "run",
    "sbin",
    "sys",
    "usr",
)
_SLIP = 0.92  # of difflib's ratio: one or two letters of a name


class Known(NamedTuple):
    """The content of variables.yaml and of the extracted lists."""

    names: frozenset[str]
    namespaces: dict[str, str]
    refused: dict[str, str]
    refused_in_container: dict[str, str]
    unread: dict[str, str]
    costs: dict[str, str]


@cache
def known_variables() -> Known:
    """Read both files."""
    data: dict[str, Any] = yaml.safe_load((catalog_dir() / "variables.yaml").read_text("utf-8"))
    extracted = json.loads((catalog_dir() / "schemas" / "library-variables.json").read_text("utf-8"))
    names = {name for library in extracted.values() for name in library}
    for text in data["documented"].values():
        names |= set(text.split())
    names -= data["unread"].keys()
    return Known(
        frozenset(names),
        data["namespaces"],
        data["refused"],
        data["refused_in_container"],
        data["unread"],
        data["costs"],
    )


def check_library_variable(name: str, release: str, *, own: Iterable[str]) -> str | None:
    """Return a note if the variable is in no list; None if it is known.

    own: the variables of vLLM itself, for a suggestion. Raises BadInputError if nothing reads it, or its name is a
    slip of another.
    """
    known = known_variables()
    if name in known.names:
        return None
    if name in known.unread:
        raise BadInputError(f"nothing in vLLM {release} reads the variable {name}: {known.unread[name]}")
    if name.startswith("VLLM_"):  # the schema has all of them
        raise BadInputError(f"nothing in vLLM {release} reads the variable {name}{closest(name, own)}")
    library = _library(name, known)
    similar = get_close_matches(name, [*own, *known.names], n=1, cutoff=_SLIP if library else 0.6)
    if library is None or similar:
        suggestion = f"; did you mean {similar[0]!r}?" if similar else ""
        raise BadInputError(
            f"nothing in vLLM {release} or a library under it reads the variable {name}{suggestion}"
        )
    return f"environment.{name}: no known variable of {library}, which its name belongs to"


def _library(name: str, known: Known) -> str | None:
    for prefix, library in known.namespaces.items():
        if name.startswith(prefix):
            return library
    return None


def refuse_dangerous(environment: Environment, *, in_container: bool, capability: str | None) -> None:
    """Raise BadInputError for a variable that would break the plan, show a secret or build kernels of another GPU.

    capability: the compute capability of the profile's GPU.
    """
    known = None
    for name, value in environment.items():
        if _SECRET_NAME.search(name):
            raise BadInputError(
                f"environment.{name} cannot be set: it is a secret, and the environment is shown"
            )
        if _PROXY.fullmatch(name) and _has_password(value):
            raise BadInputError(
                f"environment.{name} cannot be set: its address has a password, and the environment is shown"
            )
        known = known or known_variables()
        reason = known.refused.get(name)
        if reason is None and in_container:
            reason = known.refused_in_container.get(name)
        if reason is None:
            reason = _value_problem(name, value, in_container=in_container, capability=capability)
        if reason:
            raise BadInputError(f"environment.{name} cannot be set: {reason}")


def _has_password(address: str) -> bool:
    try:
        return urlsplit(address if "://" in address else f"http://{address}").password is not None
    except ValueError:
        return False


def _value_problem(name: str, value: str, *, in_container: bool, capability: str | None) -> str | None:
    """Return the reason why this value cannot work."""
    if name == "NCCL_IB_GID_INDEX" and not value.strip():
        return "an empty index is read as 0, a link-local address"
    if name in ("TORCH_CUDA_ARCH_LIST", "FLASHINFER_CUDA_ARCH_LIST") and capability:
        if not _builds_for(value, capability):
            return f"{value!r} has no kernels for compute capability {capability}, the profile's"
    if in_container and name in (*MOUNTED_CACHES, *_OTHER_CACHES):
        return _folder_problem(name, value)
    return None


def _builds_for(architectures: str, capability: str) -> bool:
    """Return True if one entry of the list makes code that this GPU runs, or if the list has other words than numbers.

    Code runs on the same major version from its minor version on; with the suffix a on its own version alone
    (CUDA C++ Programming Guide, compute capabilities). PTX is compiled for every later one.
    """
    major, minor = (int(part) for part in capability.split("."))
    for entry in re.split(r"[\s;,]+", architectures.strip()):
        found = re.fullmatch(r"(\d{1,2})\.(\d)([af]?)(\+PTX)?", entry)
        if found is None:
            return True
        its = (int(found[1]), int(found[2]))
        if found[4] and its <= (major, minor):
            return True
        if its == (major, minor) or (its[0] == major and its[1] < minor and found[3] != "a"):
            return True
    return False


def _folder_problem(name: str, value: str) -> str | None:
    parts = value.split("/")
    if parts[0] or len(parts) < 2 or not all(parts[1:]) or ".." in parts or not value.isprintable():
        return "an absolute path was expected"
    if parts[1] in _IMAGE_FOLDERS:
        return f"/{parts[1]} is the image's"
    if name not in MOUNTED_CACHES and parts[1] not in ("tmp", "home"):
        return "a container's root is read-only; /tmp is not"
    return None


def costs_of(environment: Environment, *, in_container: bool) -> tuple[str, ...]:
    """Return a note for each variable that costs something, `environment.NAME: what`."""
    notes = []
    for name, value in environment.items():
        if in_container and name in _OTHER_CACHES:
            notes.append(f"environment.{name}: {value} is memory of the container, and lost when it stops")
        elif name in known_variables().costs and value not in ("", "0"):
            notes.append(f"environment.{name}: {known_variables().costs[name]}")
    return tuple(notes)
