"""`chat`: one message to the running endpoint, its answer on stdout."""

import json
from collections.abc import Iterator
from typing import Any

import click

from deckard_deploy.cli.gateway import access
from deckard_deploy.cli.site import endpoint
from deckard_deploy.cli.state import Deployed, deployment_option
from deckard_deploy.errors import BadInputError, NetworkError
from deckard_deploy.system.http import Access, session


@click.command()
@click.argument("message")
@deployment_option
@click.option("--thinking", is_flag=True, help="Let the model think first; its thoughts go to stderr.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Length limit."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole response as JSON, not streamed.")
def chat(deployed: Deployed, message: str, thinking: bool, max_tokens: int, as_json: bool) -> None:  # noqa: FBT001  click
    """Send one message and print the answer.

    \b
    Example:
      deckard-deploy chat "Explain quantum entanglement simply."
    """
    plan = endpoint(deployed)
    opened = access(plan, deployed.directory)
    body = {
        "model": plan.served_name,
        "messages": [{"role": "user", "content": message}],
        "max_tokens": max_tokens,
        "stream": not as_json,
        "chat_template_kwargs": {"enable_thinking": thinking},
    }
    if as_json:
        for line in _post(plan.base_url, body, opened):
            click.echo(line)
        return
    thinking_aloud = False
    for line in _post(plan.base_url, body, opened):
        delta = _delta(line)
        reasoning, content = delta.get("reasoning") or "", delta.get("content") or ""
        click.echo(("\n" if thinking_aloud and content else "") + reasoning, nl=False, err=True)
        click.echo(content, nl=False)
        thinking_aloud = (thinking_aloud or bool(reasoning)) and not content
    click.echo()


def _post(base_url: str, body: dict[str, Any], opened: "Access") -> Iterator[str]:
    import requests

    url = f"{base_url}/chat/completions"
    with session(opened) as asking:
        try:
            with asking.post(url, json=body, stream=True, timeout=(5, 600)) as response:
                if response.status_code == 400:
                    raise BadInputError(f"the engine refused the message: {response.text[:300]}")
                if response.status_code != 200:
                    raise NetworkError(f"{url} answered {response.status_code}: {response.text[:300]}")
                for line in response.iter_lines():
                    if line:
                        yield line.decode("utf-8", "replace")
        except requests.RequestException as error:
            raise NetworkError(f"{url}: {type(error).__name__}", hint="deckard-deploy status") from error


def _delta(line: str) -> dict[str, Any]:
    """The new text of one server-sent event of a streamed chat completion."""
    data = line.removeprefix("data: ")
    if data in ("[DONE]", line):
        return {}
    event = json.loads(data)
    if "choices" not in event:  # an error after the stream has begun comes as an event
        raise NetworkError(f"the engine broke off: {data[:300]}", hint="deckard-deploy logs")
    return dict(event["choices"][0]["delta"]) if event["choices"] else {}
