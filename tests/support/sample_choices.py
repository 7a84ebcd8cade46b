"""Resolved choices for tests: a catalog profile with `--set` settings."""

from deckard_deploy.catalog import library
from deckard_deploy.catalog.overrides import with_settings
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.strict_yaml import parse


def choice(profile: str, *settings: str) -> Resolved:
    deployment = with_settings(parse("", source="deckard.yaml"), settings)
    return resolve(deployment, profile=library.profile(profile))
