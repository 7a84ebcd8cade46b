"""What the weights verbs and `up` share: which repository a model is held to, and how a pull is shown."""

import os
import sys
import time
from pathlib import Path

import click

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import HubRepository, ModelSpec
from deckard_deploy.cli.output import say
from deckard_deploy.errors import IntegrityError
from deckard_deploy.weights import hub, lockfile
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.manifest import Manifest
from deckard_deploy.weights.pull import Puller, pull

_PLAIN_LINE_S = 10.0
_TERMINAL_LINE_S = 0.2
_RATE_WINDOW_S = 5.0


def hub_models(resolved: Resolved) -> list[ModelSpec]:
    """The model and the drafter, as far as their weights are on the hub."""
    return [
        one for one in (resolved.model, resolved.drafter) if one and isinstance(one.weights, HubRepository)
    ]


def manifest_for(model: ModelSpec, folder: Path, *, lock_file: Path, locked: bool) -> Manifest:
    """What a model's files must be: by the lock, else as it was resolved for this folder once, else as it is now.

    Raises IntegrityError (no weights in it; `locked`, and the lock does not have it), NetworkError, BadInputError.
    """
    manifest = _manifest_for(model, folder, lock_file=lock_file, locked=locked)
    if not any(file.path.endswith(".safetensors") for file in manifest.files):
        raise IntegrityError(
            f"{manifest.repo} has no safetensors at {manifest.commit[:12]}",
            hint="deckard-deploy lock --check",
        )
    return manifest


def _manifest_for(model: ModelSpec, folder: Path, *, lock_file: Path, locked: bool) -> Manifest:
    assert isinstance(model.weights, HubRepository)  # noqa: S101  hub_models gives no other
    lock = lockfile.read(lock_file)
    if lock and (held_to := locked_manifest(model, lock, source=lock_file)):
        return held_to
    if locked:
        raise IntegrityError(f"{model.name} is not in {lock_file}", hint="deckard-deploy lock")
    known = ModelFolder(folder).manifest()
    if known and known.repo == model.weights.repo and model.weights.revision in (None, known.commit):
        return known

    return hub.resolve(model.weights.repo, model.weights.revision)


def locked_manifest(model: ModelSpec, lock: lockfile.Lock, *, source: Path) -> Manifest | None:
    """What the lock in `source` has of a model. Raises IntegrityError when that is not what the catalog names."""
    assert isinstance(model.weights, HubRepository)  # noqa: S101  hub_models gives no other
    held_to, named = lock.models.get(model.name), model.weights
    if held_to is None:
        return None
    locked, wanted = (held_to.repo, held_to.commit), (named.repo, named.revision or held_to.commit)
    if locked != wanted:
        raise IntegrityError(
            f"{source} holds {model.name} to {' at '.join(locked)}, and the catalog to {' at '.join(wanted)}",
            hint="deckard-deploy lock",
        )
    return held_to


def have(model: ModelSpec, folder: Path, *, lock_file: Path = lockfile.DEFAULT, locked: bool = False) -> int:
    """Pull what is missing of a model and check what is there; returns as `pull` does, and raises as it does."""
    manifest = manifest_for(model, folder, lock_file=lock_file, locked=locked)
    display = Display(model.name)
    try:
        return pull(manifest, folder, Puller(say, display.show))
    except KeyboardInterrupt:
        say("weights  what came is kept: the same command goes on there")
        raise
    finally:
        display.end()


class Display:
    """Progress on stderr: one line that is rewritten on a terminal, a plain line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        """Shows nothing until bytes come."""
        self._name = name
        self._terminal = sys.stderr.isatty()
        self._shown_at = self._window_at = time.monotonic()
        self._window_bytes: int | None = None
        self._rate = 0.0

    def show(self, done: int, total: int) -> None:
        """Bytes there and bytes in all."""
        now = time.monotonic()
        if self._window_bytes is None:
            self._window_bytes, self._window_at = done, now
        if now - self._window_at >= _RATE_WINDOW_S:
            self._rate = (done - self._window_bytes) / (now - self._window_at)
            self._window_bytes, self._window_at = done, now
        if now - self._shown_at < (_TERMINAL_LINE_S if self._terminal else _PLAIN_LINE_S):
            return
        self._shown_at = now
        rest = (
            f", {self._rate / 1e6:.0f} MB/s, {_clock((total - done) / self._rate)} left"
            if self._rate > 0
            else ""
        )
        line = f"weights  {self._name}: {done / 1e9:.2f} of {total / 1e9:.2f} GB{rest}"
        # A line that wraps cannot be rewritten: every look would leave another one behind.
        shown = f"\r\x1b[2K{line[: _columns() - 1]}" if self._terminal else line
        click.echo(shown, err=True, nl=not self._terminal)

    def end(self) -> None:
        """Leave the terminal on a line of its own."""
        if self._terminal and self._window_bytes is not None:
            click.echo(err=True)


def _columns() -> int:
    """Of the terminal on stderr; 80 where it does not know."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"
