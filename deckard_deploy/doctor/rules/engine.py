"""Rules about the engine's release."""

from functools import cache
from ipaddress import ip_address
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.findings import RuleVerdict, ok, rule, warn
from deckard_deploy.doctor.target import Target
from deckard_deploy.system.versions import version_numbers


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
        """Return True if this release has the fault."""
        before = self.since is not None and version_numbers(release) < version_numbers(self.since)
        after = self.fixed is not None and version_numbers(release) >= version_numbers(self.fixed)
        return not before and not after


@cache
def advisories() -> tuple[Advisory, ...]:
    """Return the known advisories, in the order of the file."""
    data = yaml.safe_load(Path(__file__).with_name("advisories.yaml").read_text(encoding="utf-8"))
    return tuple(TypeAdapter(list[Advisory]).validate_python(data["advisories"]))


@rule(
    "advisories",
    when="warn: the release has open advisories, and other hosts reach the port",
    why="who reaches the port reaches them; docs/doctor.md says what each is, and what keeps it shut",
    source="deckard_deploy/doctor/rules/advisories.yaml, with the range of each",
)
def open_advisories(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """No advisory is open for this engine, or only this host can reach the port."""
    if target.vllm_version is None:
        return None
    found = [each for each in advisories() if each.is_open(target.vllm_version)]
    names = ", ".join(each.id for each in found) or "none known"
    what = f"vLLM {target.vllm_version}: {names}"
    if not found or target.address is None:
        return ok(what)
    if ip_address(target.address).is_loopback:
        return ok(f"{what}; only this host reaches them")
    return warn(what, found[0].mitigation)
