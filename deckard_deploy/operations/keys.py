"""`keys`: change the keys of clients, and reload the running gateways."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from deckard_deploy.errors import BadInputError, DeployError, EnvironmentUnfitError
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.operations.deployments import open_deployment
from deckard_deploy.operations.gateway import GET_NGINX, credentials, reload_gateway_keys
from deckard_deploy.operations.key_usage import KeyUsage, usage_on
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import observe
from deckard_deploy.running.gateway.keys import UNLIMITED, KeyRecord, Keys, KeyTerms
from deckard_deploy.running.layout import StateDir, state_directory


def add_key(
    state_dir: Path | None,
    name: str,
    report: Reporter,
    *,
    force: bool = False,
    terms: KeyTerms = UNLIMITED,
) -> tuple[str, bool]:
    """Create a key. Return it, and True if it is the first one of this host. Only its hash is stored.

    Running gateways accept it after `tell_gateways`. force: also while a deployment runs that no key protects.
    Raises BadInputError (the name is taken), EnvironmentUnfitError (such a deployment runs).
    """
    directory = state_directory(state_dir)
    keys = Keys(directory.root)
    keys.require_unused_name(name)
    unprotected = running_without_gateway(directory, report)
    if unprotected and not force:
        raise EnvironmentUnfitError(
            f"{', '.join(unprotected)} runs without a gateway: every program of this machine gets in, "
            "with a key or without",
            hint=f"{GET_NGINX}; or, for other deployments: --force",
        )
    with keys.lock():
        first = not keys.ring().closed
        return keys.add(name, terms), first


def running_without_gateway(directory: StateDir, report: Reporter) -> list[str]:
    """Return the names of the running deployments that no key protects.

    A deployment whose runtime does not answer is left out: `tell_gateways` reports it.
    """
    return [name for name, plan in running_plans(directory, report) if plan.gateway is None]


def running_plans(directory: StateDir, report: Reporter) -> list[tuple[str, LaunchPlan]]:
    """Return the running deployments, each with the plan that runs."""
    found = []
    for name in directory.deployments():
        with suppress(DeployError), open_deployment(directory, name, report) as context:
            seen = observe(context.runtimes)
            release = context.releases.get(seen.plan_hash) if seen.plan_hash else None
            if release and seen.state in ("running", "restarting"):
                found.append((name, release.load().plan))
    return found


def list_keys(state_dir: Path | None) -> dict[str, KeyRecord]:
    """Return the records of the keys by name, sorted."""
    return dict(sorted(Keys(state_directory(state_dir).root).ring().keys.items()))


def key_terms(
    *, requests: int | None, tokens: int | None, concurrent: int | None, ends_at: int | None
) -> KeyTerms:
    """Return the limits of a key; None: none."""
    return KeyTerms(requests=requests, tokens=tokens, concurrent=concurrent, ends_at=ends_at)


def limit_key(state_dir: Path | None, name: str, terms: KeyTerms, report: Reporter) -> None:
    """Give a key these limits in place of the former, and reload the running gateways. Raises BadInputError."""
    keys = Keys(state_directory(state_dir).root)
    keys.require_known_name(name)
    with keys.lock():
        keys.limit(name, terms)
    tell_gateways(state_dir, report)


def rotate_key(state_dir: Path | None, name: str) -> str:
    """Replace a key by a new one with the same limits, and return it. Raises BadInputError.

    Running gateways refuse the old key after `tell_gateways`.
    """
    keys = Keys(state_directory(state_dir).root)
    keys.require_known_name(name)
    with keys.lock():
        return keys.rotate(name)


def open_host(state_dir: Path | None, report: Reporter) -> None:
    """Let programs of this machine in without a key again, and reload the running gateways.

    Raises BadInputError while a key is left, or while an exposed deployment runs.
    """
    directory = state_directory(state_dir)
    for name, plan in running_plans(directory, report):
        if plan.gateway and plan.gateway.exposed:
            raise BadInputError(
                f"{name} is exposed to other machines, which need a key always",
                hint=f"deckard-deploy down --name {name}",
            )
    keys = Keys(directory.root)
    with keys.lock():
        keys.open()
    tell_gateways(state_dir, report)


def usage(state_dir: Path | None, report: Reporter) -> Iterator[KeyUsage]:
    """Yield what each key has used at each running deployment. A deployment that does not count is reported.

    Raises NetworkError when an endpoint does not answer.
    """
    directory = state_directory(state_dir)
    for name, plan in running_plans(directory, report):
        if plan.gateway is None:
            report.say(f"{name} has no gateway, so it knows no keys")
        elif plan.request_filter is None:
            report.say(f"{name} was started by a version that did not count: deckard-deploy up --upgrade")
        else:
            page = scrape(metrics_url(plan.base_url), credentials(plan, directory))
            yield from usage_on(name, page)


def access_file(state_dir: Path | None) -> str:
    """Return the file that a gateway reads: the hashes of the keys, including this tool's own."""
    return Keys(state_directory(state_dir).root).access()


def explain_revocation(state_dir: Path | None, name: str, report: Reporter) -> None:
    """Report what `revoke_key` would do; do nothing. Raises BadInputError for an unknown name."""
    keys = Keys(state_directory(state_dir).root)
    keys.require_known_name(name)
    left = len(keys.ring().keys) - 1
    report.say(f"dry run: would revoke {name}; keys that are left: {left}")


def revoke_key(state_dir: Path | None, name: str, report: Reporter) -> bool:
    """Revoke a key, and reload the running gateways.

    Return True if another key is left. Raises BadInputError.
    """
    directory = state_directory(state_dir)
    keys = Keys(directory.root)
    if name not in keys.ring().keys and directory.deployments():
        report.say(
            f"no key is named {name!r}; if a revocation of it was interrupted, gateways may not know: "
            "they are told"
        )
        tell_gateways(state_dir, report)
    keys.require_known_name(name)
    with keys.lock():
        keys.revoke(name)
        left = keys.ring().keys
    tell_gateways(state_dir, report)
    return bool(left)


def tell_gateways(state_dir: Path | None, report: Reporter) -> None:
    """Make every running gateway of this host read its keys again, and name the deployments without one.

    An error of one does not keep the others from it, and is raised in the end.
    """
    directory = state_directory(state_dir)
    for name in running_without_gateway(directory, report):
        report.say(f"{name} has no gateway: it still serves every program of this machine, without a key")
    failed: DeployError | None = None
    for name in directory.deployments():
        try:
            with open_deployment(directory, name, report) as context:
                if reload_gateway_keys(context, directory):
                    report.say(f"gateway  of {name} uses the new keys")
        except DeployError as error:
            report.say(f"gateway  of {name} may still use the old keys: {error.message}")
            failed = error
    if failed:
        raise failed
