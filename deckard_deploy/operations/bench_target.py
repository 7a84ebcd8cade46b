"""The target of `bench`: the running deployment's own server, and the limits of its hardware."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from deckard_deploy import __version__
from deckard_deploy.catalog import library
from deckard_deploy.catalog.specs import ModelSpec
from deckard_deploy.errors import BadInputError, DeployError, NetworkError
from deckard_deploy.measuring.engine_bench import Endpoint
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.measuring.records import Ceiling, Drafting, RecordBase, Subject
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.operations.bench_host import host_facts, without_home
from deckard_deploy.operations.deployments import (
    DeploymentRef,
    observed_plan,
    open_deployment,
    require_text,
    up_command,
)
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.release import create_release
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.roofline import Roofline, expert_bytes, weight_bytes_read
from deckard_deploy.running.deploy import DeploymentContext, deploy, observe
from deckard_deploy.running.gateway.files import CERTIFICATE
from deckard_deploy.running.releases import Release, Releases

_PASSED = ("PATH", "HOME", "LANG")
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def current_release(deployment: DeploymentRef) -> Release:
    """Return the release that was last proven ready. Raises BadInputError."""
    release = Releases(deployment.directory.deployment(deployment.name)).current()
    if release is None:
        raise BadInputError(f"{deployment.name} was never ready", hint=up_command(deployment))
    return release.load()


def ensure_running(context: DeploymentContext, plan: LaunchPlan) -> None:
    """Start a plan as a release of its own, unless it is the current one and runs. Raises the errors of `deploy`."""
    current = context.releases.current()
    running = observe(context.runtimes).plan_hash
    if current and current.plan_hash == plan.hash and running == plan.hash:
        return
    deploy(context, *create_release(plan, context.releases))


def running_endpoint(deployment: DeploymentRef, report: Reporter) -> tuple[LaunchPlan, Endpoint]:
    """Return the running plan, and the endpoint at which its Python reaches vLLM.

    Raises BadInputError when nothing runs, for one that answers with no text, on a socket in a container, or behind a
    certificate that cannot be checked; EnvironmentUnfitError.
    """
    with open_deployment(deployment.directory, deployment.name, report) as context:
        plan, _ = observed_plan(deployment, context)
        require_text(plan, "bench")
        refuse_socket(plan)
        refuse_foreign_certificate(plan)
        python = context.runtimes[plan.runtime].python(plan)
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    environment.update(python.environment)
    if plan.runtime == "process":
        environment.update(_client_environment(plan, deployment))
    endpoint = Endpoint(
        server=_server_address(plan),
        served_name=plan.served_name,
        model=plan.arguments[0],
        python=python.argv,
        environment=environment,
    )
    return plan, endpoint


def _client_environment(plan: LaunchPlan, deployment: DeploymentRef) -> Mapping[str, str]:
    """Return the variables with key and certificate, by which the benchmark passes a process's gateway.

    The engine's benchmark takes a key from this variable alone (vllm 0.19.1
    benchmarks/lib/endpoint_request_func.py), and aiohttp trusts the certificates that Python's ssl trusts.
    """
    variables = {}
    key = credentials(plan, deployment.directory).key
    if key:
        variables["OPENAI_API_KEY"] = key
    return {**variables, **certificate_variables(plan)}


def certificate_variables(plan: LaunchPlan) -> dict[str, str]:
    """Return the variable by which the benchmark trusts the gateway's certificate, if it has one."""
    if plan.gateway is None or not plan.gateway.tls:
        return {}
    return {"SSL_CERT_FILE": str(Path(plan.gateway.folder) / CERTIFICATE)}


def refuse_foreign_certificate(plan: LaunchPlan) -> None:
    """Raise BadInputError for a process behind a certificate of the user's own.

    Its authority and names are unknown.
    """
    gateway = plan.gateway
    if gateway and gateway.program and gateway.certificate:
        raise BadInputError(
            f"{plan.deployment} is reached through nginx with {gateway.certificate}, which the engine's "
            f"benchmark cannot check at {plan.base_url}",
            hint="measure without publish.certificate and publish.certificate_key: take them out, then up",
        )


def refuse_socket(plan: LaunchPlan) -> None:
    """Raise BadInputError for a replica in a container, which listens on its socket alone."""
    if plan.runtime == "docker" and plan.option("uds"):
        front = plan.deployment.rpartition("-")[0]
        raise BadInputError(
            f"{plan.deployment} listens on a socket, which the engine's benchmark cannot ask",
            hint=f"deckard-deploy down --name {front}, then: "
            f"deckard-deploy up --profile {plan.profile} --name {front}-one, without --replicas",
        )


def _server_address(plan: LaunchPlan) -> str:
    """Return the URL at which vLLM's own Python reaches it: in a container it bypasses the gateway.

    Behind the gateway of a process vLLM listens on a socket, so the gateway's URL is used.
    """
    if plan.gateway and plan.gateway.program:
        return plan.base_url.removesuffix("/v1")
    host = plan.option("host") or "127.0.0.1"
    host = _ANY_ADDRESS.get(host, host)
    port = plan.option("port") or str(plan.container_port)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def requests_in_flight(plan: LaunchPlan, deployment: DeploymentRef) -> int:
    """Return the requests that the server answers before any is sent; 0 when its page cannot be read."""
    try:
        page = scrape(metrics_url(plan.base_url), credentials(plan, deployment.directory))
    except NetworkError:
        return 0
    return int(page.value("vllm:num_requests_running") or 0)


def record_base(plan: LaunchPlan, made_at: datetime) -> RecordBase:
    """Return the first fields of a record that is made of the plan on this host."""
    return RecordBase(
        id=f"{made_at:%Y%m%d-%H%M%S}-{plan.hash}",
        made_at=made_at.isoformat("T", "seconds"),
        tool_version=__version__,
        subject=describe_deployment(plan),
        host=host_facts(),
    )


def describe_deployment(plan: LaunchPlan) -> Subject:
    """Return the description of the plan for a record."""
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
        arguments=tuple(map(without_home, plan.arguments)),
    )


def _drafting(plan: LaunchPlan) -> Drafting | None:
    config = plan.speculative
    if config is None:
        return None
    return Drafting(
        method=config.method or "from the model",
        model=without_home(config.model) if config.model else None,
        tokens=config.num_speculative_tokens or 0,
    )


def ceilings_of(
    plan: LaunchPlan, settings: Settings, own_model: ModelSpec | None = None
) -> tuple[Ceiling, ...]:
    """Return the roofline at each concurrency of a sweep. own_model: one that the catalog does not have."""
    try:
        roofline = _roofline(plan, own_model or library.model(plan.model))
    except DeployError as error:
        return _no_ceilings(settings, error.message)
    if roofline is None:
        return _no_ceilings(settings, f"the memory bandwidth of {plan.profile} is not known")
    # In the middle of an answer; the prompts of `text` are short.
    prompt_tokens = settings.input_tokens if settings.workload == "random" else 64
    context = settings.output_tokens // 2 + prompt_tokens
    limit = int(plan.option("max-num-seqs") or max(settings.concurrency))
    ceilings = []
    for concurrency in settings.concurrency:
        tokens_per_s = roofline.tokens_per_s(min(concurrency, limit), context)
        ceilings.append(Ceiling(concurrency=concurrency, tokens_per_s=tokens_per_s))
    return tuple(ceilings)


def _no_ceilings(settings: Settings, why: str) -> tuple[Ceiling, ...]:
    return tuple(Ceiling(concurrency=concurrency, why=why) for concurrency in settings.concurrency)


def _roofline(plan: LaunchPlan, model: ModelSpec) -> Roofline | None:
    """Return the roofline without a drafter; None if it cannot be computed.

    Raises BadInputError if the catalog lacks the profile, or planning does not know the architecture.
    """
    if not model.architecture.layers:
        raise BadInputError(f"the architecture of {model.name} is not known to planning")
    hardware = library.profile(plan.profile).hardware
    if hardware.bandwidth_gb_s is None:
        return None
    narrow = (plan.option("kv-cache-dtype") or "auto").startswith("fp8")
    return Roofline(
        weights=weight_bytes_read(model, plan.lm_head),
        experts=expert_bytes(model),
        bandwidth=hardware.bandwidth_gb_s * 1e9,
        ranks=int(plan.option("tensor-parallel-size") or 1),
        architecture=model.architecture,
        element_bytes=1 if narrow else 2,
        efficiency=hardware.decode_efficiency,
    )
