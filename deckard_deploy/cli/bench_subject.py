"""What `bench` measures: the running deployment's own server, and the limits of its hardware."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deckard_deploy.catalog import library
from deckard_deploy.cli.gateway import access
from deckard_deploy.cli.output import echo_command, say
from deckard_deploy.cli.prepare import installed_program
from deckard_deploy.cli.site import open_site, running_plan
from deckard_deploy.cli.state import Deployed, start_line
from deckard_deploy.errors import BadInputError, DeployError, NetworkError
from deckard_deploy.measuring.engine_bench import Endpoint
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.measuring.records import Ceiling, Drafting, Subject
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.roofline import Roofline, weight_read
from deckard_deploy.running.docker.runtime import DockerRuntime
from deckard_deploy.running.gateway.files import CERTIFICATE
from deckard_deploy.running.releases import Release, Releases

_PASSED = ("PATH", "HOME", "LANG")
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def current_release(deployed: Deployed) -> Release:
    """The release that was last proven ready. Raises BadInputError."""
    release = Releases(deployed.directory.deployment(deployed.name)).current()
    if release is None:
        raise BadInputError(f"{deployed.name} was never ready", hint=start_line(deployed))
    return release


def running_endpoint(deployed: Deployed) -> tuple[LaunchPlan, Endpoint]:
    """The plan that runs, and where its Python reaches vLLM.

    Raises BadInputError when nothing runs, or behind a certificate that cannot be checked; EnvironmentUnfitError.
    """
    with open_site(deployed.directory, deployed.name, say) as site:
        plan, seen = running_plan(deployed, site)
        refuse_foreign_certificate(plan)
        runtime = site.runtimes[plan.runtime]
        if isinstance(runtime, DockerRuntime):
            python: tuple[str, ...] = ("docker", "exec", "--interactive", str(seen.instance_id), "python3")
            more: Mapping[str, str] = {"DOCKER_HOST": runtime.engine.endpoint}
        else:
            python = (str(installed_program(plan, deployed.directory, echo_command).with_name("python")),)
            more = plan.environment | _own_key(plan, deployed) | _trust(plan)
    own = {name: os.environ[name] for name in _PASSED if name in os.environ}
    endpoint = Endpoint(
        server=_listens_on(plan),
        served_name=plan.served_name,
        model=plan.arguments[0],
        python=python,
        environment={**own, **more},
    )
    return plan, endpoint


def _own_key(plan: LaunchPlan, deployed: Deployed) -> dict[str, str]:
    """A process is reached through its gateway; the engine's benchmark takes a key from nowhere but this variable.

    (vllm 0.19.1 benchmarks/lib/endpoint_request_func.py.)
    """
    key = access(plan, deployed.directory).key
    return {"OPENAI_API_KEY": key} if key else {}


def refuse_foreign_certificate(plan: LaunchPlan) -> None:
    """Raise BadInputError for a process behind the user's own certificate: whose authority and names are not known."""
    gateway = plan.gateway
    if gateway and gateway.program and gateway.certificate:
        raise BadInputError(
            f"{plan.deployment} is reached through nginx with {gateway.certificate}, which the engine's benchmark "
            f"cannot check at {plan.base_url}",
            hint="measure without publish.certificate and publish.certificate_key: take them out, then up",
        )


def _trust(plan: LaunchPlan) -> dict[str, str]:
    """For the benchmark of a process behind this tool's own certificate: aiohttp trusts what Python's ssl does."""
    gateway = plan.gateway
    return {"SSL_CERT_FILE": str(Path(gateway.folder) / CERTIFICATE)} if gateway and gateway.tls else {}


def _listens_on(plan: LaunchPlan) -> str:
    """Where vLLM is reached from where its Python runs: in a container past the gateway.

    Behind the gateway of a process vLLM listens on a socket, so there it is reached as clients reach it.
    """
    if plan.gateway and plan.gateway.program:
        return plan.base_url.removesuffix("/v1")
    host, port = _option(plan, "--host") or "127.0.0.1", _option(plan, "--port") or str(plan.container_port)
    host = _ANY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _option(plan: LaunchPlan, name: str) -> str | None:
    return plan.arguments[plan.arguments.index(name) + 1] if name in plan.arguments else None


def others_at_work(plan: LaunchPlan, deployed: Deployed) -> int:
    """Requests that the server answers before any is sent; 0 when its page cannot be read."""
    try:
        running = scrape(metrics_url(plan.base_url), access(plan, deployed.directory)).value(
            "vllm:num_requests_running"
        )
    except NetworkError:
        return 0
    return int(running or 0)


def subject_of(plan: LaunchPlan) -> Subject:
    """What a record says of the plan."""
    return Subject(
        plan=plan.hash,
        deployment=plan.deployment,
        profile=plan.profile,
        model=plan.model,
        engine=plan.engine,
        vllm_version=plan.vllm_version,
        image=plan.image,
        drafting=_drafting(plan),
        patches={patch.name: patch.sha256 for patch in plan.patches},
        arguments=plan.arguments,
    )


def _drafting(plan: LaunchPlan) -> Drafting | None:
    said = _option(plan, "--speculative-config")
    if said is None:
        return None
    config: dict[str, Any] = json.loads(said)
    return Drafting(
        method=config.get("method", "from the model"),
        model=config.get("model"),
        tokens=config.get("num_speculative_tokens", 0),
    )


def ceilings_of(plan: LaunchPlan, settings: Settings) -> tuple[Ceiling, ...]:
    """The roofline at each concurrency of a sweep."""
    try:
        roofline = _roofline(plan)
    except DeployError as error:
        return tuple(Ceiling(concurrency=number, why=error.message) for number in settings.concurrency)
    if roofline is None:
        why = f"the memory bandwidth of {plan.profile} is not known"
        return tuple(Ceiling(concurrency=number, why=why) for number in settings.concurrency)
    # In the middle of an answer; the prompts of `text` are short.
    context = settings.output_tokens // 2 + (settings.input_tokens if settings.workload == "random" else 64)
    limit = int(_option(plan, "--max-num-seqs") or max(settings.concurrency))
    return tuple(
        Ceiling(concurrency=number, tokens_per_s=roofline.tokens_per_s(min(number, limit), context))
        for number in settings.concurrency
    )


def _roofline(plan: LaunchPlan) -> Roofline | None:
    """Without a drafter. Raises BadInputError when the profile or the model is in no catalog."""
    hardware, model = library.profile(plan.profile).hardware, library.model(plan.model)
    if hardware.bandwidth_gb_s is None:
        return None
    narrow = (_option(plan, "--kv-cache-dtype") or "auto").startswith("fp8")
    return Roofline(
        weights=weight_read(model),
        bandwidth=hardware.bandwidth_gb_s * 1e9,
        ranks=int(_option(plan, "--tensor-parallel-size") or 1),
        architecture=model.architecture,
        element_bytes=1 if narrow else 2,
        efficiency=hardware.decode_efficiency,
    )
