"""Rules about the engine's release."""

from functools import cache
from ipaddress import ip_address
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.findings import RuleVerdict, fail, info, ok, rule, warn
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


_NAMED = 4  # advisories in a finding; docs/doctor.md has all


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
    what = f"vLLM {target.vllm_version}: {_named(found)}"
    if not found or target.address is None:
        return ok(what)
    if ip_address(target.address).is_loopback:
        return ok(f"{what}; only this host reaches them")
    return warn(what, found[0].mitigation)


def _named(found: list[Advisory]) -> str:
    """Return the first advisories by name, and the number of the others."""
    names = ", ".join(each.id for each in found[:_NAMED])
    if len(found) > _NAMED:
        return f"{names} and {len(found) - _NAMED} more"
    return names or "none known"


@rule(
    "engine-libraries",
    when="fail: a shared library of the engine is not installed",
    why="no wheel has it; `up` refuses before it installs the engine",
    source="deckard_deploy/running/process/locks, NEEDED by vllm/_C*.abi3.so",
)
def engine_libraries(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The host has the libraries of a private environment."""
    if facts.libraries is None or not target.libraries:
        return None
    for name, command in target.libraries.items():
        if name not in facts.libraries:
            return fail(f"{name} is missing", f"sudo {command}")
    return ok(", ".join(target.libraries))


@rule(
    "gateway-program",
    when="info: nginx is not installed",
    why="without a gateway every program of this machine reaches the endpoint, and no key is asked for",
    source="docs/gateway.md",
)
def gateway_program(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """A plain process can have a gateway."""
    if facts.nginx is None or target.needs_docker is not False:
        return None
    if facts.nginx:
        return ok("nginx")
    return info("no nginx", "sudo apt-get install nginx-light, then: --set gateway=nginx")
