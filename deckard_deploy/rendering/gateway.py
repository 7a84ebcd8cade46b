"""LaunchPlan -> nginx.conf of the gateway."""

from deckard_deploy import __version__
from deckard_deploy.planning.gateway import FOLDER, PORT, SOCKET
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.templates import environment

CONFIG = "nginx.conf"
OWN_KEY = "dk-deckard"  # the name of the key that this tool itself uses
# Method, path as a regular expression, what the engine is asked. Not /v1/responses/ID: vLLM keeps no responses unless
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
    """The configuration. Raises ValueError for a plan without a gateway.

    In the process runtime nginx runs in the deployment's folder, and this file lies in a release's, two below. in_pod:
    the engine shares the loopback address with nginx, and every client comes from another machine.
    """
    gateway = plan.gateway
    if gateway is None:
        raise ValueError(f"{plan.deployment} has no gateway")
    in_container = gateway.image is not None
    address = f"[{plan.address}]" if ":" in plan.address else plan.address
    return (
        environment()
        .get_template("nginx.conf.j2")
        .render(
            title="The gateway in front of vLLM",
            version=__version__,
            routes=[(method, path.replace(".", r"\."), upstream) for method, path, upstream in ROUTES],
            folder=FOLDER if in_container else "../../gateway",
            scratch="/tmp" if in_container else "gateway",
            listen=str(PORT) if in_container else f"{address}:{plan.port}",
            upstream=_upstream(plan, in_container=in_container, in_pod=in_pod),
            resolver="127.0.0.11" if in_container and not in_pod else None,
            exposed=gateway.exposed or in_pod,
            tls=gateway.tls,
            own=OWN_KEY,
        )
    )


def _upstream(plan: LaunchPlan, *, in_container: bool, in_pod: bool) -> str:
    if not in_container:
        return f"unix:{SOCKET}:"
    return f"{'127.0.0.1' if in_pod else 'vllm'}:{plan.container_port}"
