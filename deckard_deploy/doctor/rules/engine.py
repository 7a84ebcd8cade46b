"""Rules about the engine's release."""

from functools import cache
from ipaddress import ip_address
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.findings import Verdict, ok, rule, version, warn
from deckard_deploy.doctor.target import Target


class Advisory(BaseModel):
    """One entry of advisories.yaml: open from `since` on, up to but not including `fixed`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: str
    about: str
    since: str | None
    fixed: str | None
    here: str
    mitigation: str
    test: str

    def is_open(self, release: str) -> bool:
        """Does this release have it?"""
        before = self.since is not None and version(release) < version(self.since)
        after = self.fixed is not None and version(release) >= version(self.fixed)
        return not before and not after


@cache
def advisories() -> tuple[Advisory, ...]:
    """All that are known, in the order of the file."""
    data = yaml.safe_load(Path(__file__).with_name("advisories.yaml").read_text(encoding="utf-8"))
    return tuple(TypeAdapter(list[Advisory]).validate_python(data["advisories"]))


@rule(
    "advisories",
    when="warn: the release has published ones, and others than this host reach the port",
    why="who reaches the port reaches them; docs/doctor.md says what each is, and what keeps it shut",
    source="deckard_deploy/doctor/rules/advisories.yaml, with the range of each",
)
def open_advisories(facts: HostFacts, target: Target) -> Verdict | None:
    """Open for this engine?"""
    if target.vllm_version is None:
        return None
    found = [each for each in advisories() if each.is_open(target.vllm_version)]
    named = f"vLLM {target.vllm_version}: {', '.join(each.id for each in found) or 'none known'}"
    if not found or target.address is None:
        return ok(named)
    if ip_address(target.address).is_loopback:
        return ok(f"{named}; only this host reaches them")
    return warn(named, found[0].mitigation)
