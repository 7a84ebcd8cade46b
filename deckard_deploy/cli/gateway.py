"""The gateway of a deployment: what it reads, how this tool gets through it, and what it opens."""

import contextlib
import os
import time

from deckard_deploy.cli.output import echo_command, say
from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.gateway import ROUTES
from deckard_deploy.running.deploy import Site
from deckard_deploy.running.gateway import files
from deckard_deploy.running.gateway.keys import Keys, access_version
from deckard_deploy.running.layout import StateDir
from deckard_deploy.system.http import Access, session

TAKEN_OVER_S = 10.0
# Nginx's old workers still accept for 100 ms after its new ones do (src/os/unix/ngx_process_cycle.c)
SETTLED_S = 0.5
_ASK_AGAIN_S = 0.05


def access(plan: LaunchPlan, directory: StateDir) -> Access:
    """What this tool itself needs to get through to the plan's endpoint."""
    if plan.gateway is None:
        return Access()
    return Access(key=Keys(directory.root).own(), pinned=files.fingerprint(plan))


def have_gateway(plan: LaunchPlan, directory: StateDir) -> bool:
    """Have what the plan's gateway reads; whether anything of it is new. Raises as refuse_unfit_gateway."""
    refuse_unfit_gateway(plan, directory)
    if plan.gateway is None:
        say(
            "gateway  none: any program of this machine may ask the engine; nginx would ask for keys (docs/gateway.md)"
        )
        return False
    return files.prepare(plan, Keys(directory.root), environment=dict(os.environ), say=echo_command)


def refuse_unfit_gateway(plan: LaunchPlan, directory: StateDir) -> None:
    """Raise BadInputError: other machines would be let in without a key for them, or the certificate is none."""
    files.refuse_bad_pair(plan)
    if plan.gateway and plan.gateway.exposed and not Keys(directory.root).ring().keys:
        raise BadInputError(
            f"--expose {plan.address} needs a key for clients", hint="deckard-deploy keys add NAME"
        )


def say_what_is_open(plan: LaunchPlan, directory: StateDir) -> None:
    """Who may ask for what, when that is more than this machine."""
    if plan.gateway is None or not plan.gateway.exposed:
        return

    say(f"exposed  {plan.base_url} to every machine that reaches {plan.address}; keys: {_names(directory)}")
    if plan.gateway.image:
        say("         docker publishes the port past ufw's rules")
    open_routes = [path for _, path, _ in ROUTES if path != "/metrics"]
    say(f"         open: {', '.join(open_routes)}; nothing else")
    pinned = files.fingerprint(plan)
    say(
        f"         certificate SHA-256 {pinned}"
        if pinned
        else "         without TLS: keys and prompts can be read"
    )


def take_over(site: "Site", directory: StateDir) -> bool:
    """Have the deployment's gateway read its folder again, and wait until it has; False when no endpoint runs.

    One that is starting, or whose engine is away, is told as well: nobody waits for it. Raises EnvironmentUnfitError
    when it does not take the new files.
    """
    files.renew_access(site.releases.deployment.gateway, Keys(directory.root))
    for runtime in site.runtimes.values():
        runtime.reload()
        seen = runtime.observe()
        release = site.releases.get(seen.plan_hash) if seen.plan_hash and seen.state == "running" else None
        if release and (plan := release.plan()).gateway:
            _wait_for_keys(plan, directory)
            return True
    return False


def goes_by_older_keys(plan: LaunchPlan, directory: StateDir) -> bool:
    """Whether the gateway answers, and by other keys than those of now: whoever told it last was interrupted."""
    found = _version(plan, access(plan, directory)) if plan.gateway else None
    return found is not None and found != access_version(Keys(directory.root).access())


def _names(directory: StateDir) -> str:
    return ", ".join(sorted(Keys(directory.root).ring().keys))


def _wait_for_keys(plan: LaunchPlan, directory: StateDir) -> None:
    wanted = access_version(Keys(directory.root).access())
    opened = access(plan, directory)
    deadline = time.monotonic() + TAKEN_OVER_S
    since = None
    while since is None or time.monotonic() - since < SETTLED_S:
        if time.monotonic() > deadline:
            raise EnvironmentUnfitError(
                f"the gateway of {plan.deployment} did not take over the new keys within {TAKEN_OVER_S:g} s",
                hint=f"deckard-deploy down --name {plan.deployment}, then up",
            )
        if _version(plan, opened) != wanted:
            since = None
        elif since is None:
            since = time.monotonic()
        time.sleep(_ASK_AGAIN_S)


def _version(plan: LaunchPlan, opened: Access) -> str | None:
    """Of the keys that the gateway goes by; None when it does not answer."""
    import requests

    with contextlib.suppress(requests.RequestException), session(opened) as asking:
        return asking.get(f"{plan.base_url}/health/live", timeout=2).headers.get("Deckard-Access")
    return None
