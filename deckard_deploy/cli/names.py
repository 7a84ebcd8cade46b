"""Names that a shell completes: of the catalog, and of what is on this machine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from deckard_deploy import operations
from deckard_deploy.catalog import listing

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def catalog_names(kind: listing.Kind, *more: str) -> Completer:
    """Return a completer of the entries of a catalog folder, and of the words in `more`."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _beginning_with(incomplete, [*listing.names(kind), *more])

    return complete


def model_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the models of the catalog, and those that the user added."""
    own = operations.completion.own_models(_state_dir(context))
    return _beginning_with(incomplete, [*listing.names("models"), *own])


def own_model_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the models that the user added."""
    return _beginning_with(incomplete, operations.completion.own_models(_state_dir(context)))


def deployment_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the deployments of this host."""
    return _beginning_with(incomplete, operations.completion.deployments(_state_dir(context)))


def record_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the benchmark records of this host, and the word for the newest."""
    return _beginning_with(incomplete, ["last", *operations.completion.records(_state_dir(context))])


def key_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of the clients' keys."""
    return _beginning_with(incomplete, list(operations.keys.list_keys(_state_dir(context))))


def _state_dir(context: click.Context) -> Path | None:
    given: Any = context.params.get("state_dir")
    return Path(given) if given else None


def _beginning_with(incomplete: str, words: Sequence[str]) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def is_profile(word: str) -> bool:
    """Return True for the name of a hardware profile."""
    return word in listing.names("profiles")
