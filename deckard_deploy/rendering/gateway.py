"""Render the gateway's nginx.conf from a LaunchPlan."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deckard_deploy import __version__
from deckard_deploy.catalog.specs import Task
from deckard_deploy.planning.gateway import FOLDER, PORT, SOCKET
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.templates import environment

CONFIG = "nginx.conf"
REPLICAS = "replicas.conf"  # in the gateway's folder of a front
FIGURES = "/v1/health/gateway"  # nginx's own, with this tool's key
OWN_KEY = "dk-deckard"  # the name of the tool's own key


class Route(NamedTuple):
    """A route of the gateway. engine_path: the path at the engine; a word: nginx answers by itself."""

    methods: tuple[str, ...]
    path: str
    engine_path: str


READ, POST = ("GET", "HEAD"), ("POST",)
# The routes of a task; the engine serves each of them under its own path.
# Without /v1/responses/ID: vLLM stores no responses unless VLLM_ENABLE_RESPONSES_API_STORE is set (0.19.1
# envs.py:1471, "may cause a memory leak"). /v1/messages: vllm/entrypoints/anthropic/api_router.py, both releases.
# Vectors also score: vLLM compares those of query and document (entrypoints/pooling/__init__.py of 0.19.1 and
# entrypoints/pooling/utils.py of 0.32.0, enable_scoring_api).
TASK_ROUTES: Mapping[Task, tuple[str, ...]] = {
    "generate": (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
    ),
    "embed": ("/v1/embeddings", "/v1/rerank", "/v1/score"),
    "score": ("/v1/rerank", "/v1/score"),
}
_COMMON_ROUTES = (
    Route(READ, "/v1/models", "/v1/models"),
    Route(READ, "/v1/health/live", "live"),
    Route(READ, "/v1/health/ready", "/health"),
    Route(("GET",), "/metrics", "/metrics"),
)


def routes_of(task: Task) -> tuple[Route, ...]:
    """Return the routes of an endpoint with this task."""
    return (*(Route(POST, path, path) for path in TASK_ROUTES[task]), *_COMMON_ROUTES)


class Refusal(NamedTuple):
    """An answer of the gateway itself. suffix: a second answer of the same status.

    openai_type, code: of OpenAI's error object (platform.openai.com/docs/guides/error-codes). anthropic_type:
    docs.claude.com/en/api/errors.
    """

    status: int
    openai_type: str
    code: str
    anthropic_type: str
    message: str
    suffix: str = ""

    @property
    def openai(self) -> str:
        """The body for clients of OpenAI's API."""
        error = {"message": self.message, "type": self.openai_type, "param": None, "code": self.code}
        return json.dumps({"error": error})

    @property
    def anthropic(self) -> str:
        """The body for clients of Anthropic's API."""
        error = {"type": self.anthropic_type, "message": self.message}
        return json.dumps({"type": "error", "error": error})


def refusals(served_name: str, task: Task = "generate") -> tuple[Refusal, ...]:
    """Return every answer of the gateway itself that is no success."""
    bad, server = "invalid_request_error", "server_error"
    routes = ", ".join(TASK_ROUTES[task])
    no_key = "no API key was sent: send Authorization: Bearer KEY, x-api-key: KEY or api-key: KEY"
    down = "the model is loading, or its engine has stopped: try again in a few seconds"
    return (
        Refusal(400, bad, "bad_request", bad, "the request is malformed: its Host header or its framing"),
        Refusal(401, bad, "invalid_api_key", "authentication_error", "the API key is not valid"),
        Refusal(401, bad, "missing_api_key", "authentication_error", no_key, "_missing"),
        Refusal(403, bad, "other_machine", "permission_error", "only programs of this machine are served"),
        Refusal(404, bad, "unknown_route", "not_found_error", f"no such route; POST goes to {routes}"),
        Refusal(
            404, bad, "model_not_found", "not_found_error", f"no such model; there is {served_name}", "_model"
        ),
        Refusal(405, bad, "method_not_allowed", bad, "this route takes another method: see the header Allow"),
        Refusal(413, bad, "request_too_large", "request_too_large", "the request has more than 32 MiB"),
        Refusal(414, bad, "url_too_long", bad, "the URL is too long"),
        Refusal(415, bad, "unsupported_media_type", bad, "only Content-Type: application/json is read"),
        Refusal(
            429,
            "requests",
            "rate_limit_exceeded",
            "rate_limit_error",
            "too many requests or connections of this key",
        ),
        Refusal(431, bad, "headers_too_large", bad, "the headers are too many or too long"),
        Refusal(500, server, "gateway_error", "api_error", "the gateway failed"),
        Refusal(502, server, "engine_error", "api_error", "the engine broke off without an answer"),
        Refusal(503, server, "model_loading", "overloaded_error", down),
    )


class Member(NamedTuple):
    """A replica in the front's list. server: `unix:…` or `host:port`. out: it gets no requests now."""

    server: str
    out: bool = False


def render_replicas(members: Sequence[Member], engine: LaunchPlan) -> str:
    """Return what the front knows of its replicas: their addresses, and the model, by the plan of one of them.

    max_fails: a host that is gone may cost each request a second, and is left out for two after a failure. A socket
    without a listener costs nothing; were it left out, one moment in which all fail would be two seconds of errors.
    """
    lines = []
    for each in members:
        health = "max_fails=0" if each.server.startswith("unix:") else "max_fails=1 fail_timeout=2s"
        lines.append(f"    server {each.server} {health}{' down' * each.out};")
    servers = "\n".join(lines)
    return "\n".join(
        (
            f"upstream replicas {{\n    zone replicas 256k;\n    least_conn;\n{servers}\n}}",
            f"upstream replica_of_key {{\n    zone replica_of_key 256k;\n    hash $client consistent;\n{servers}\n}}",
            _model_map(engine),
        )
    )


def _model_map(plan: LaunchPlan) -> str:
    model = _model(plan)
    listed = json.dumps({"object": "list", "data": [model]})
    return (
        'map $request $model {\n    default "";\n'
        f"    \"~^[A-Z]+ /v1/models/?(\\?[^ ]*)? \" '{listed}';\n"
        f"    \"~^[A-Z]+ /v1/models/[^ ]\" '{json.dumps(model)}';\n}}"
    )


def render_gateway(plan: LaunchPlan, *, in_pod: bool = False, replicas: str | None = None) -> str:
    """Return the configuration. Raises ValueError for a plan without a gateway.

    In the process runtime nginx runs in the deployment's folder, and this file is in a release's folder two
    levels below. in_pod: the engine shares the loopback address with nginx, and every client is on another
    machine. replicas: of a front, as `render_replicas` returns it; None: a file in the gateway's folder.
    """
    gateway = plan.gateway
    if gateway is None:
        raise ValueError(f"{plan.deployment} has no gateway")
    in_container = gateway.image is not None
    if in_container:
        folder, scratch, listen = FOLDER, "/tmp", str(PORT)
        engine_host = "127.0.0.1" if in_pod else "vllm"
        upstream = f"{engine_host}:{plan.container_port}"
        socket = plan.option("uds")
        if socket:
            upstream = f"unix:{socket}:"
    else:
        folder, scratch, listen = "../../gateway", "gateway", endpoint(plan)
        upstream = f"unix:{SOCKET}:"
    model = _model(plan)
    answers = refusals(plan.served_name, plan.task)
    front = plan.role == "front"
    routes = [*routes_of(plan.task), _model_route(plan)]
    if front:  # the figures of one replica are not those of all
        routes = [route for route in routes if route.path != "/metrics"]
    template = environment().get_template("nginx.conf.j2")
    return template.render(
        title="The gateway in front of vLLM",
        version=__version__,
        routes=[route._replace(path=re.escape(route.path)) for route in routes],
        front=front,
        replicas=replicas,
        model=json.dumps(model),
        model_list=json.dumps({"object": "list", "data": [model]}),
        refusals=answers,
        statuses=[
            answer.status for answer in answers if not answer.suffix and answer.status not in (401, 502)
        ],
        folder=folder,
        scratch=scratch,
        listen=listen,
        upstream=upstream,
        resolver="127.0.0.11"
        if in_container and not in_pod and not front and not plan.option("uds")
        else None,
        exposed=gateway.exposed or in_pod,
        tls=gateway.tls,
        own=OWN_KEY,
        figures=FIGURES,
    )


def _model_route(plan: LaunchPlan) -> Route:
    return Route(READ, f"/v1/models/{plan.served_name}", "model")


def _model(plan: LaunchPlan) -> dict[str, object]:
    """Return the model as clients see it: vLLM's own list has the host's path and the launch's name."""
    model: dict[str, object] = {
        "id": plan.served_name,
        "object": "model",
        "created": 0,
        "owned_by": "deckard-deploy",
    }
    length = plan.option("max-model-len")
    if length and length.isdecimal():
        model["max_model_len"] = int(length)
    return model


def endpoint(plan: LaunchPlan) -> str:
    """Return `address:port` of the endpoint, with brackets around an IPv6 address."""
    address = f"[{plan.address}]" if ":" in plan.address else plan.address
    return f"{address}:{plan.port}"
