"""Resolved choices for tests: a catalog profile with `--set` settings."""

from deckard_deploy.catalog import library
from deckard_deploy.catalog.overrides import with_settings
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.specs import HardwareProfile
from deckard_deploy.catalog.strict_yaml import parse

PATCHED = "vllm-0.19.1"


def choice(profile: str, *settings: str) -> Resolved:
    """Return the choice on the patched release, without a drafter, unless a setting names another one."""
    deployment = with_settings(parse("", source="deckard.yaml"), settings)
    return resolve(deployment, profile=patched(profile))


def patched(profile: str) -> HardwareProfile:
    """Return a profile of the catalog that takes the patched release, if it is one of a GPU."""
    found = library.profile(profile)
    if found.hardware.gpu_count == 0:
        return found
    return found.model_copy(update={"engine": PATCHED, "drafter": None})
