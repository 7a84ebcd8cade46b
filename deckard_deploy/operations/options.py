"""The options of an operation as plain values, from the command line or the Python API.

This module imports nothing heavy, so that the command line can use it for `--help`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The choice of a deployment.

    profile: a name or a YAML file. config: a deckard.yaml; None takes ./deckard.yaml if it exists.
    settings: `KEY=VALUE` strings, as for `--set`. written_as: the text that the user typed, for each setting
    that came from an option of its own (`--model`). compat: the name of a model card's launch line, which is
    used unchanged.
    detect: without a named profile, take the one that fits this machine.
    """

    profile: str | None = None
    config: Path | None = None
    settings: tuple[str, ...] = ()
    written_as: Mapping[str, str] = field(default_factory=dict)
    compat: str | None = None
    detect: bool = False


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """What `up` may do, and what it must not.

    locked: refuse every part that ./deckard.lock lacks. force: continue although `doctor` found a reason to
    stop. upgrade: replace an engine that only this version of the tool starts otherwise.
    """

    locked: bool = False
    force: bool = False
    upgrade: bool = False


PLAIN_UP = UpOptions()


@dataclass(frozen=True)
class LockUse:
    """The use of a lock.

    file: None for ./deckard.lock, if it exists. required: refuse every part that the lock lacks.
    """

    file: Path | None = None
    required: bool = False


DEFAULT_LOCK = LockUse()


@dataclass(frozen=True)
class Selection:
    """A deployment of this host.

    state_dir: None for the user's own data folder. name: None for the only deployment there is. profile: None
    for any; otherwise without a name only the deployments of that hardware profile count.
    """

    state_dir: Path | None = None
    name: str | None = None
    profile: str | None = None
