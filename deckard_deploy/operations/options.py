"""The options of an operation as plain values: what the command line and the Python API pass on.

This module imports nothing heavy, so that the command line can use it for `--help`.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to deploy.

    profile: a name or a YAML file. config: a deckard.yaml; None takes ./deckard.yaml if it exists.
    settings: `KEY=VALUE` each, as `--set` takes them. compat: a launch line of the user's own to keep.
    detect: take the profile that fits this machine when nothing names one.
    """

    profile: str | None = None
    config: Path | None = None
    settings: tuple[str, ...] = ()
    compat: str | None = None
    detect: bool = False


@dataclass(frozen=True)
class LockUse:
    """How a lock is used. file: None for ./deckard.lock, if it exists. required: refuse what the lock does not have."""

    file: Path | None = None
    required: bool = False


DEFAULT_LOCK = LockUse()


@dataclass(frozen=True)
class Selection:
    """A deployment of this host.

    state_dir: None for the user's own data folder. name: None for the only deployment there is.
    """

    state_dir: Path | None = None
    name: str | None = None
