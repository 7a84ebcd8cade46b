"""Render the gateway's nginx.conf from a LaunchPlan."""

from deckard_deploy import __version__
from deckard_deploy.planning.gateway import FOLDER, PORT, SOCKET
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.templates import environment

CONFIG = "nginx.conf"
OWN_KEY = "dk-deckard"  # the name of the tool's own key
# (method, path for clients, path of the engine). Without /v1/responses/ID: vLLM stores no responses unless
# VLLM_ENABLE_RESPONSES_API_STORE is set (0.19.1 envs.py:1471, "may cause a memory leak").
ROUTES = (
    ("POST", "/v1/chat/completions", "/v1/chat/completions"),
    ("POST", "/v1/completions", "/v1/completions"),
    ("POST", "/v1/responses", "/v1/responses"),
    ("GET", "/v1/models", "/v1/models"),
    ("GET", "/v1/health/live", "live"),
    ("GET", "/v1/health/ready", "/health"),
    ("GET", "/metrics", "/metrics"),
)


def render_gateway(plan: LaunchPlan, *, in_pod: bool = False) -> str:
    """Return the configuration. Raises ValueError for a plan without a gateway.

    In the process runtime nginx runs in the deployment's folder, and this file is in a release's folder two
    levels below. in_pod: the engine shares the loopback address with nginx, and every client is on another
    machine.
    """
    gateway = plan.gateway
    if gateway is None:
        raise ValueError(f"{plan.deployment} has no gateway")
    in_container = gateway.image is not None
    if in_container:
        folder, scratch, listen = FOLDER, "/tmp", str(PORT)
        engine_host = "127.0.0.1" if in_pod else "vllm"
        upstream = f"{engine_host}:{plan.container_port}"
    else:
        folder, scratch, listen = "../../gateway", "gateway", endpoint(plan)
        upstream = f"unix:{SOCKET}:"
    template = environment().get_template("nginx.conf.j2")
    return template.render(
        title="The gateway in front of vLLM",
        version=__version__,
        routes=[(method, path.replace(".", r"\."), engine_path) for method, path, engine_path in ROUTES],
        folder=folder,
        scratch=scratch,
        listen=listen,
        upstream=upstream,
        resolver="127.0.0.11" if in_container and not in_pod else None,
        exposed=gateway.exposed or in_pod,
        tls=gateway.tls,
        own=OWN_KEY,
    )


def endpoint(plan: LaunchPlan) -> str:
    """Return `address:port` of the endpoint, with brackets around an IPv6 address."""
    address = f"[{plan.address}]" if ":" in plan.address else plan.address
    return f"{address}:{plan.port}"
