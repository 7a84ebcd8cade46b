"""`chat`: messages to the running endpoint, with the answers on stdout."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import selection_option
from deckard_deploy.cli.output import say
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.options import Selection

if TYPE_CHECKING:
    from deckard_deploy.operations.chat import ChatEndpoint, Message


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation with the endpoint, and its settings."""

    endpoint: "ChatEndpoint"
    messages: "list[Message]"
    thinking: bool
    max_tokens: int

    def send(self, message: "Message") -> None:
        """Send a message, print the answer as it arrives, and remember both."""
        self.messages.append(message)
        text = finish = ""
        thoughts_shown = False
        for delta in operations.chat.stream(self.endpoint, self.body()):
            if thoughts_shown and delta.content:
                click.echo(err=True)
            thoughts_shown = bool(delta.reasoning) or (thoughts_shown and not delta.content)
            click.echo(delta.reasoning, nl=False, err=True)
            click.echo(delta.content, nl=False)
            text += delta.content
            finish = delta.finish or finish
        click.echo()
        if finish == "length":
            say(f"the answer is cut: it has reached --max-tokens {self.max_tokens} or the end of the context")
        self.messages.append({"role": "assistant", "content": text})

    def body(self) -> dict[str, object]:
        """Return the request for the answer to the last message."""
        return operations.chat.request_body(
            self.endpoint, self.messages, thinking=self.thinking, max_tokens=self.max_tokens
        )


@click.command()
@click.argument("message", nargs=-1)
@selection_option
@click.option("--system", metavar="TEXT", help="Instructions for the model, before the first message.")
@click.option(
    "--image", "images", type=click.Path(path_type=Path), multiple=True, help="An image file; repeatable."
)
@click.option("--thinking", is_flag=True, help="Let the model think first; its thoughts go to stderr.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Maximum length of the answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole response as JSON, not streamed.")
def chat(  # noqa: PLR0913  one parameter per option
    message: tuple[str, ...],
    *,
    selection: Selection,
    system: str | None,
    images: tuple[Path, ...],
    thinking: bool,
    max_tokens: int,
    as_json: bool,
) -> None:
    """Send a message and print the answer; without a message, converse line by line.

    The word - stands for the text on stdin. A conversation keeps its history and ends with ^D.

    \b
    Example:
      deckard-deploy chat "Explain quantum entanglement simply."
      git diff | deckard-deploy chat Review this change: -
    """
    if as_json and not message:
        raise BadInputError("--json prints one response: give a message")
    conversation = Conversation(
        endpoint=operations.chat.chat_endpoint(selection, TERMINAL),
        messages=[{"role": "system", "content": system}] if system else [],
        thinking=thinking,
        max_tokens=max_tokens,
    )
    if not message:
        _converse(conversation, images)
        return
    first = operations.chat.user_message(_text(message), images)
    if as_json:
        conversation.messages.append(first)
        click.echo(operations.chat.whole_response(conversation.endpoint, conversation.body()))
        return
    conversation.send(first)


def _text(words: tuple[str, ...]) -> str:
    """Return the words as one text, with stdin in place of the word -."""
    if "-" not in words:
        return " ".join(words)
    piped = sys.stdin.buffer.read().decode("utf-8", "replace")
    text = " ".join(piped if word == "-" else word for word in words)
    if not text.strip():
        raise BadInputError("stdin is empty")
    return text


def _converse(conversation: Conversation, images: tuple[Path, ...]) -> None:
    """Send each line of stdin as a message. images: go with the first one."""
    on_terminal = sys.stdin.isatty()
    if on_terminal:
        import readline  # noqa: F401  input() edits lines with it

        say(f"{conversation.endpoint.model} at {conversation.endpoint.base_url}; end with ^D")
    while True:
        try:
            line = input("> " if on_terminal else "")
        except EOFError:
            return
        if line.strip():
            conversation.send(operations.chat.user_message(line, images))
            images = ()
