"""`connect`: the configuration of a client for the running endpoint, and the request that the client would make."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import requests

from deckard_deploy.catalog.specs import Task
from deckard_deploy.errors import BadInputError, NetworkError
from deckard_deploy.operations.deployments import ANSWERS, running_plan, select_deployment
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.gateway.files import CERTIFICATE
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.system.http import EndpointCredentials, session
from deckard_deploy.system.suggestion import closest

KEY_VARIABLE = "DECKARD_KEY"
# Measured with Claude Code 2, opencode 1 and Codex: docs/clients.md.
AGENT_TOKENS = 32768
_PROMPT = "Say hello."


class Endpoint(NamedTuple):
    """The running endpoint as a client sees it.

    base_url: of OpenAI's API, ending in /v1. context: tokens; None where the plan leaves them to the engine.
    certificate: the file that a client has to trust. key: what stands for the key in a configuration.
    """

    base_url: str
    model: str
    context: int | None
    certificate: str | None
    needs_key: bool
    vllm_version: str
    task: Task = "generate"

    @property
    def root(self) -> str:
        """The base URL of Anthropic's API: clients add /v1/messages."""
        return self.base_url.removesuffix("/v1")

    @property
    def key(self) -> str:
        """The shell's word for the key: the variable, or any text where the endpoint needs none."""
        return f"${KEY_VARIABLE}" if self.needs_key else "unused"


Body: TypeAlias = dict[str, Any]


class Client(NamedTuple):
    """A client: what it is, its configuration, and the request that it makes.

    tasks: of the endpoints that it is for.
    """

    about: str
    configuration: Callable[[Endpoint], str]
    path: str
    body: Callable[[Endpoint], Body]
    agent: bool = False
    tasks: tuple[Task, ...] = ("generate",)


def endpoint_of(selection: Selection, report: Reporter) -> tuple[Endpoint, EndpointCredentials]:
    """Return the running endpoint and this tool's credentials for it. Raises BadInputError when nothing runs."""
    deployment = select_deployment(selection)
    plan = running_plan(deployment, report)
    length = plan.option("max-model-len")
    gateway = plan.gateway
    self_signed = gateway is not None and gateway.tls and gateway.certificate is None
    closed = Keys(deployment.directory.root).ring().closed
    found = Endpoint(
        base_url=plan.base_url,
        model=plan.served_name,
        context=int(length) if length and length.isdecimal() else None,
        certificate=str(Path(gateway.folder) / CERTIFICATE) if gateway and self_signed else None,
        needs_key=gateway is not None and (gateway.exposed or closed),
        vllm_version=plan.vllm_version,
        task=plan.task,
    )
    return found, credentials(plan, deployment.directory)


def client(name: str) -> Client:
    """Return a client by its name. Raises BadInputError."""
    if name not in CLIENTS:
        near = closest(name, CLIENTS) or f"; known: {', '.join(CLIENTS)}"
        raise BadInputError(f"no client is called {name[:40]!r}{near}", hint="deckard-deploy connect")
    return CLIENTS[name]


def require_task(name: str, endpoint: Endpoint) -> None:
    """Raise BadInputError if the client is for another kind of endpoint."""
    if endpoint.task not in client(name).tasks:
        usable = [other for other, known in CLIENTS.items() if endpoint.task in known.tasks]
        raise BadInputError(
            f"{endpoint.model} answers with {ANSWERS[endpoint.task][0]}, which {name} does not ask for",
            hint=f"deckard-deploy connect {usable[0]}",
        )


def notes(chosen: Client, endpoint: Endpoint, key_name: str | None) -> Iterator[str]:
    """Yield what the user has to know next to the configuration."""
    if endpoint.needs_key:
        name = key_name or "NAME"
        yield f"{KEY_VARIABLE} is the key that `deckard-deploy keys add {name}` has printed"
    if endpoint.certificate:
        yield f"the certificate is self-signed: clients of other machines need a copy of {endpoint.certificate}"
    if chosen.agent and endpoint.context is not None and endpoint.context < AGENT_TOKENS:
        yield (
            f"the context has {endpoint.context} tokens, and an agent's own instructions take up to half of "
            f"{AGENT_TOKENS}: --set max-model-len={AGENT_TOKENS}"
        )
    if chosen.path.startswith("/v1/messages") and endpoint.vllm_version == "0.19.1":
        yield "vLLM 0.19.1 refuses a system message among the others, which Claude Code sends: use vllm-0.32.0 or later"


def check(name: str, endpoint: Endpoint, access: EndpointCredentials) -> str:
    """Make the request that a client makes, and return what came, in one line. Raises NetworkError.

    With the key in DECKARD_KEY if it is set, otherwise with this tool's own.
    """
    chosen = client(name)
    url = endpoint.root + chosen.path
    key = os.environ.get(KEY_VARIABLE)
    if key:
        access = EndpointCredentials(key=key, pinned=access.pinned)
    with session(access) as http:
        try:
            response = http.post(url, json=chosen.body(endpoint), timeout=(5, 600))
        except requests.RequestException as error:
            raise NetworkError(f"{url}: {type(error).__name__}", hint="deckard-deploy wait") from error
    whose = f"the key of {KEY_VARIABLE}" if key else "this tool's own key"
    text = " ".join(response.text.split())
    if response.status_code != 200:
        raise NetworkError(f"{name}: POST {url} with {whose}: {response.status_code} {text[:300]}")
    return f"{name}: POST {url} with {whose}: 200, {len(response.content)} bytes: {text[:80]} …"


def _chat(endpoint: Endpoint) -> Body:
    return {"model": endpoint.model, "messages": [{"role": "user", "content": _PROMPT}], "max_tokens": 32}


def _chat_streamed(endpoint: Endpoint) -> Body:
    return {**_chat(endpoint), "stream": True, "stream_options": {"include_usage": True}}


def _chat_with_tool(endpoint: Endpoint) -> Body:
    function = {"name": "read", "description": "Read a file.", "parameters": _TOOL_SCHEMA}
    return {**_chat_streamed(endpoint), "tools": [{"type": "function", "function": function}]}


def _response(endpoint: Endpoint) -> Body:
    asked = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": _PROMPT}]}]
    return {
        "model": endpoint.model,
        "input": asked,
        "instructions": "Be brief.",
        "stream": True,
        "store": False,
    }


def _messages(endpoint: Endpoint) -> Body:
    return {
        "model": endpoint.model,
        "max_tokens": 32,
        "stream": True,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": _PROMPT},
            {"role": "system", "content": "The date is known."},
        ],
        "tools": [{"name": "Read", "description": "Read a file.", "input_schema": _TOOL_SCHEMA}],
    }


_TOOL_SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


def _curl(endpoint: Endpoint) -> str:
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": _PROMPT}]}
    return _curl_command(endpoint, "/chat/completions", body)


def _curl_command(endpoint: Endpoint, path: str, body: Body) -> str:
    trust = f" --cacert {endpoint.certificate}" if endpoint.certificate else ""
    header = f' \\\n  -H "Authorization: Bearer {endpoint.key}"' if endpoint.needs_key else ""
    return (
        f"curl{trust} {endpoint.base_url}{path}{header} \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d '{json.dumps(body)}'\n"
    )


def _python_key(endpoint: Endpoint) -> str:
    return f'os.environ["{KEY_VARIABLE}"]' if endpoint.needs_key else '"unused"'


def _openai_python(endpoint: Endpoint) -> str:
    trust = ""
    names = "OpenAI"
    modules = ["os"] if endpoint.needs_key else []
    if endpoint.certificate:
        modules.append("ssl")
        # The library's own class: openai 2 brings httpx, and openai 3 httpx2.
        names = "DefaultHttpxClient, OpenAI"
        context = f'ssl.create_default_context(cafile="{endpoint.certificate}")'
        trust = f",\n    http_client=DefaultHttpxClient(verify={context})"
    imports = "".join(f"import {module}\n" for module in modules)
    if imports:
        imports += "\n"
    return f"""{imports}from openai import {names}

client = OpenAI(
    base_url="{endpoint.base_url}",
    api_key={_python_key(endpoint)}{trust},
)
answer = client.chat.completions.create(
    model="{endpoint.model}", messages=[{{"role": "user", "content": "{_PROMPT}"}}]
)
print(answer.choices[0].message.content)
"""


def _openai_js(endpoint: Endpoint) -> str:
    key = f"process.env.{KEY_VARIABLE}" if endpoint.needs_key else '"unused"'
    trust = (
        f"// NODE_EXTRA_CA_CERTS={endpoint.certificate} node this-file.mjs\n" if endpoint.certificate else ""
    )
    return f"""{trust}import OpenAI from "openai";

const client = new OpenAI({{ baseURL: "{endpoint.base_url}", apiKey: {key} }});
const answer = await client.chat.completions.create({{
  model: "{endpoint.model}",
  messages: [{{ role: "user", content: "{_PROMPT}" }}],
}});
console.log(answer.choices[0].message.content);
"""


def _langchain(endpoint: Endpoint) -> str:
    trust = f"# SSL_CERT_FILE={endpoint.certificate} python this_file.py\n" if endpoint.certificate else ""
    imports = "import os\n\n" if endpoint.needs_key else ""
    return f"""{trust}{imports}from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    model="{endpoint.model}",
    base_url="{endpoint.base_url}",
    api_key={_python_key(endpoint)},
)
print(model.invoke("{_PROMPT}").content)
"""


def _litellm(endpoint: Endpoint) -> str:
    trust = f"# SSL_CERT_FILE={endpoint.certificate} python this_file.py\n" if endpoint.certificate else ""
    imports = "import os\n\n" if endpoint.needs_key else ""
    return f"""{trust}{imports}import litellm

answer = litellm.completion(
    model="hosted_vllm/{endpoint.model}",
    api_base="{endpoint.base_url}",
    api_key={_python_key(endpoint)},
    messages=[{{"role": "user", "content": "{_PROMPT}"}}],
)
print(answer.choices[0].message.content)
"""


def _claude_code(endpoint: Endpoint) -> str:
    lines = [
        f"export ANTHROPIC_BASE_URL={endpoint.root}",
        f'export ANTHROPIC_AUTH_TOKEN="{endpoint.key}"',
        f"export ANTHROPIC_MODEL={endpoint.model}",
        f"export ANTHROPIC_DEFAULT_HAIKU_MODEL={endpoint.model}",
        "export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
    ]
    if endpoint.context:
        # It asks for up to 32000 tokens of answer by default, which must fit next to the prompt.
        lines.append(f"export CLAUDE_CODE_MAX_OUTPUT_TOKENS={endpoint.context // 4}")
    if endpoint.certificate:
        lines.append(f"export NODE_EXTRA_CA_CERTS={endpoint.certificate}")
    return "\n".join([*lines, "claude", ""])


def _opencode(endpoint: Endpoint) -> str:
    model: dict[str, Any] = {"name": endpoint.model}
    if endpoint.context:
        model["limit"] = {"context": endpoint.context, "output": endpoint.context // 4}
    key = f"{{env:{KEY_VARIABLE}}}" if endpoint.needs_key else "unused"
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "deckard",
        "options": {"baseURL": endpoint.base_url, "apiKey": key},
        "models": {endpoint.model: model},
    }
    config = {
        "$schema": "https://opencode.ai/config.json",
        "model": f"deckard/{endpoint.model}",
        "provider": {"deckard": provider},
    }
    return json.dumps(config, indent=2) + "\n"


def _codex(endpoint: Endpoint) -> str:
    window = f"model_context_window = {endpoint.context}\n" if endpoint.context else ""
    key = f'env_key = "{KEY_VARIABLE}"\n' if endpoint.needs_key else ""
    return (
        f'model = "{endpoint.model}"\nmodel_provider = "deckard"\n{window}\n'
        f'[model_providers.deckard]\nname = "deckard"\nbase_url = "{endpoint.base_url}"\n{key}wire_api = "responses"\n'
    )


def _open_webui(endpoint: Endpoint) -> str:
    key = f"${{{KEY_VARIABLE}:?}}" if endpoint.needs_key else "unused"
    trust = volumes = ""
    if endpoint.certificate:
        trust = "      SSL_CERT_FILE: /certificate.pem\n"
        volumes = f"      - {endpoint.certificate}:/certificate.pem:ro\n"
    return f"""services:
  open-webui:
    image: ghcr.io/open-webui/open-webui:main
    # The endpoint is on this machine's loopback address, which a bridged container does not reach.
    network_mode: host
    environment:
      HOST: 127.0.0.1
      PORT: "3000"
      OPENAI_API_BASE_URL: {endpoint.base_url}
      OPENAI_API_KEY: {key}
      ENABLE_OLLAMA_API: "false"
{trust}    volumes:
      - open-webui:/app/backend/data
{volumes}volumes:
  open-webui:
"""


def _embedding(endpoint: Endpoint) -> Body:
    return {"model": endpoint.model, "input": ["a first text", "and another"]}


def _embeddings(endpoint: Endpoint) -> str:
    head = _openai_python(endpoint).partition("answer = ")[0]
    return f"""{head}answer = client.embeddings.create(
    model="{endpoint.model}", input=["a first text", "and another"], encoding_format="float"
)
print([len(found.embedding) for found in answer.data])
"""


def _reranking(endpoint: Endpoint) -> Body:
    return {
        "model": endpoint.model,
        "query": "a question",
        "documents": ["a first text", "and another"],
        "top_n": 2,
    }


def _rerank(endpoint: Endpoint) -> str:
    return _curl_command(endpoint, "/rerank", _reranking(endpoint))


CHAT = "/v1/chat/completions"
CLIENTS = {
    "curl": Client("a request from the shell", _curl, CHAT, _chat),
    "openai-python": Client("OpenAI's library for Python", _openai_python, CHAT, _chat),
    "openai-js": Client("OpenAI's library for JavaScript", _openai_js, CHAT, _chat),
    "langchain": Client("LangChain (langchain-openai)", _langchain, CHAT, _chat),
    "litellm": Client("LiteLLM", _litellm, CHAT, _chat),
    "claude-code": Client(
        "Claude Code: variables of its shell", _claude_code, "/v1/messages?beta=true", _messages, agent=True
    ),
    "opencode": Client("opencode: opencode.json", _opencode, CHAT, _chat_with_tool, agent=True),
    "codex": Client("Codex: ~/.codex/config.toml", _codex, "/v1/responses", _response, agent=True),
    "open-webui": Client("Open WebUI: a compose file", _open_webui, CHAT, _chat_streamed),
    "embeddings": Client(
        "vectors with OpenAI's library for Python",
        _embeddings,
        "/v1/embeddings",
        _embedding,
        tasks=("embed",),
    ),
    "rerank": Client(
        "scores of documents from the shell", _rerank, "/v1/rerank", _reranking, tasks=("embed", "score")
    ),
}
