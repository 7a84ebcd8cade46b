"""`chat`: one message to the running endpoint, with the answer on stdout."""

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import selection_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@click.argument("message")
@selection_option
@click.option("--thinking", is_flag=True, help="Let the model think first; its thoughts go to stderr.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Length limit."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole response as JSON, not streamed.")
def chat(message: str, *, selection: Selection, thinking: bool, max_tokens: int, as_json: bool) -> None:
    """Send one message and print the answer.

    \b
    Example:
      deckard-deploy chat "Explain quantum entanglement simply."
    """
    endpoint = operations.chat.chat_endpoint(selection, TERMINAL)
    body = operations.chat.request_body(endpoint, message, thinking=thinking, max_tokens=max_tokens)
    if as_json:
        click.echo(operations.chat.whole_response(endpoint, body))
        return
    thoughts_shown = False
    for delta in operations.chat.stream(endpoint, body):
        if thoughts_shown and delta.content:
            click.echo(err=True)
            thoughts_shown = False
        click.echo(delta.reasoning, nl=False, err=True)
        click.echo(delta.content, nl=False)
        if delta.reasoning and not delta.content:
            thoughts_shown = True
    click.echo()
