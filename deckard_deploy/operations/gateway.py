"""The gateway of a deployment: its files, this tool's own credentials, and the exposed routes."""

import contextlib
import os
import time
from pathlib import Path

import requests

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.gateway import routes_of
from deckard_deploy.running.deploy import DeploymentContext
from deckard_deploy.running.gateway import files
from deckard_deploy.running.gateway.keys import Keys, access_version
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.process import isolation
from deckard_deploy.running.releases import Releases
from deckard_deploy.system.http import EndpointCredentials, session

GET_NGINX = "sudo apt-get install nginx-light, then up with --set gateway=nginx"
RELOAD_TIMEOUT_S = 10.0
# nginx's old workers still accept for 100 ms after its new ones do (src/os/unix/ngx_process_cycle.c).
SETTLED_S = 0.5
_POLL_S = 0.05


def credentials(plan: LaunchPlan, directory: StateDir) -> EndpointCredentials:
    """Return this tool's own credentials for the plan's endpoint."""
    if plan.gateway is None:
        return EndpointCredentials()
    return EndpointCredentials(key=Keys(directory.root).own(), pinned=files.fingerprint(plan))


def ensure_gateway_files(plan: LaunchPlan, directory: StateDir, report: Reporter) -> bool:
    """Write the gateway's files. Return True if any of them changed. Raises as refuse_unfit_gateway."""
    refuse_unfit_gateway(plan, directory)
    report_shared_network(plan, report)
    if plan.gateway is None:
        report.say(
            "gateway  none: every program of this machine can use the API without a key "
            "(docs/gateway.md); for a gateway: " + GET_NGINX
        )
        return False
    return files.write_gateway_files(
        plan, Keys(directory.root), environment=dict(os.environ), say=report.command
    )


def report_shared_network(plan: LaunchPlan, report: Reporter) -> None:
    """Report a process that cannot have a network of its own (docs/safety.md)."""
    if plan.runtime != "process":
        return
    obstacle = isolation.obstacle()
    if obstacle:
        report.say(f"network  shared with this host: {obstacle}")
        report.say("         torch's ports have no password; other machines may reach them (docs/safety.md)")


def refuse_unfit_gateway(plan: LaunchPlan, directory: StateDir) -> None:
    """Raise BadInputError if an exposed endpoint has no client key, or the certificate is unusable."""
    files.require_matching_pair(plan)
    if plan.gateway and plan.gateway.exposed and not Keys(directory.root).ring().keys:
        raise BadInputError(
            f"--expose {plan.address} needs a key for clients", hint="deckard-deploy keys add NAME"
        )


def refuse_useless_keys(resolved: Resolved, plan: LaunchPlan, directory: StateDir) -> None:
    """Raise BadInputError if this host has keys, and a process without a gateway would serve without them.

    `gateway: off` accepts that; in docker `allow_unsafe` does.
    """
    if plan.gateway is not None or plan.runtime != "process" or resolved.gateway == "off":
        return
    if Keys(directory.root).ring().closed:
        raise BadInputError(
            f"{plan.deployment} has no gateway, so the keys of this host would not protect it",
            hint=f"{GET_NGINX}; or, to let in every program of this machine: --set gateway=off",
        )


def report_exposure(plan: LaunchPlan, directory: StateDir, report: Reporter) -> None:
    """Report the keys and routes of an endpoint that is exposed to other machines."""
    if plan.gateway is None or not plan.gateway.exposed:
        return
    names = ", ".join(sorted(Keys(directory.root).ring().keys))
    report.say(f"exposed  {plan.base_url} to every machine that reaches {plan.address}; keys: {names}")
    if plan.gateway.image:
        report.say("         docker publishes the port past ufw's rules")
    open_routes = [path for _, path, _ in routes_of(plan.task) if path != "/metrics"]
    report.say(f"         open: {', '.join(open_routes)}; nothing else")
    fingerprint = files.fingerprint(plan)
    if fingerprint:
        report.say(f"         certificate SHA-256 {fingerprint}")
    else:
        report.say("         without TLS: keys and prompts can be read")


def reload_gateway_keys(context: DeploymentContext, directory: StateDir) -> bool:
    """Make the deployment's gateway reload its folder, and wait for it. Return False when no endpoint runs.

    A gateway that is starting, or whose engine does not run, reloads too, without a wait. Raises
    EnvironmentUnfitError when the gateway does not take the new files.
    """
    if directory.front_of(context.releases.deployment.name) is None:
        for folder in _gateway_folders(context.releases):
            files.renew_access(folder, Keys(directory.root))
    for runtime in context.runtimes.values():
        runtime.reload()
        seen = runtime.observe()
        if seen.plan_hash is None or seen.state != "running":
            continue
        release = context.releases.get(seen.plan_hash)
        plan = release.load().plan if release else None
        if plan and plan.gateway:
            _wait_for_keys(plan, directory)
            return True
    return False


def _gateway_folders(releases: Releases) -> set[Path]:
    """Return the folder of the deployment's gateway, and those of adopted releases."""
    folders = {releases.deployment.gateway}
    for release in releases.all():
        plan = release.load().plan if release.adopted_from() else None
        if plan and plan.gateway:
            folders.add(Path(plan.gateway.folder))
    return folders


def has_stale_keys(plan: LaunchPlan, directory: StateDir) -> bool:
    """Return True if the gateway uses other keys than the current ones: a reload was interrupted."""
    if plan.gateway is None:
        return False
    found = _access_version_of(plan, credentials(plan, directory))
    return found is not None and found != access_version(files.access_of(plan, Keys(directory.root)))


def _wait_for_keys(plan: LaunchPlan, directory: StateDir) -> None:
    wanted = access_version(files.access_of(plan, Keys(directory.root)))
    access = credentials(plan, directory)
    deadline = time.monotonic() + RELOAD_TIMEOUT_S
    since = None
    while since is None or time.monotonic() - since < SETTLED_S:
        if time.monotonic() > deadline:
            raise EnvironmentUnfitError(
                f"the gateway of {plan.deployment} did not take over the new keys "
                f"within {RELOAD_TIMEOUT_S:g} s",
                hint=f"deckard-deploy down --name {plan.deployment}, then: deckard-deploy up",
            )
        if _access_version_of(plan, access) != wanted:
            since = None
        elif since is None:
            since = time.monotonic()
        time.sleep(_POLL_S)


def _access_version_of(plan: LaunchPlan, access: EndpointCredentials) -> str | None:
    """Return the version of the keys that the gateway uses; None when it does not answer."""
    with contextlib.suppress(requests.RequestException), session(access) as http:
        return http.get(f"{plan.base_url}/health/live", timeout=2).headers.get("Deckard-Access")
    return None
