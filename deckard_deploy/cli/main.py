"""The program: its verbs, and the one boundary where every error becomes a line and an exit code."""

import gc
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from deckard_deploy import __version__
from deckard_deploy.cli.redaction import redacted
from deckard_deploy.errors import BadInputError, DeployError

# What the user typed: the launcher of a checkout says its own name.
PROGRAM = os.environ.get("DECKARD_PROGRAM", "deckard-deploy")
# Verb -> one line of help. Each lives in the module of its name, imported only when it is called: `--help` must
# not pay for pydantic, docker or requests. A test compares these lines with the commands' own.
VERBS = {
    "up": "Start the endpoint and wait until it is proven ready.",
    "down": "Stop the endpoint and remove what was started.",
    "status": "Say what runs, since when, and whether it answers.",
    "logs": "Print the engine's log.",
    "wait": "Wait until the running endpoint is ready.",
    "watch": "Keep the current release answering.",
    "rollback": "Bring the release before the current one back.",
    "chat": "Send one message and print the answer.",
    "bench": "Measure the running endpoint with its engine's own benchmark.",
    "top": "Watch throughput, latency, queue, KV cache and drafter.",
    "monitor": "Run Prometheus and Grafana beside the endpoint, on this machine only.",
    "keys": "Make, list and revoke the keys of clients.",
    "plan": "Show what `up` would run, and what would change.",
    "render": "Write the compose file or the command line of a plan.",
    "profiles": "Say which hardware profiles this machine can run; list them, or show one.",
    "models": "List models, or show one.",
    "engines": "List engines, or show one.",
    "lock": "Resolve models to commits and hashes, images to digests, patches and plugins to hashes.",
    "pull": "Fetch a deployment's weights, resuming and checking every byte.",
    "verify": "Hash a deployment's weights and name every file that is wrong.",
    "inspect": "Show what a checkpoint holds and what is wrong with it.",
    "patches": "List, check and build the vLLM patches.",
    "sbom": "List what a deployment consists of, as CycloneDX.",
    "doctor": "Look for what is wrong with this machine.",
}
_MODULES = {"profiles": "catalogs", "models": "catalogs", "engines": "catalogs"}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in VERBS:
            return None
        module = import_module(f"deckard_deploy.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command = getattr(module, cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="deckard-deploy")
@click.option("-v", "--verbose", is_flag=True, help="Show the commands of other programs that are run.")
def cli(verbose: bool) -> None:  # noqa: FBT001  output.echo_command asks the context for it
    """Turn a hardware profile into a verified, running, OpenAI-compatible vLLM endpoint.

    \b
    Example:
      deckard-deploy up --profile cpu
    """


def main() -> NoReturn:
    """The console script."""
    _open_streams()  # guard: F47
    # As ^C, which a job in the background of a script does not get.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # guard: F3
    # As mypy does: loading makes tens of thousands of objects that stay; looking at them again and again finds nothing.
    gc.set_threshold(100_000)
    code = run(sys.argv[1:])
    gc.freeze()  # or the interpreter, as it ends, searches all that was loaded for garbage: 15 ms of a `plan`
    sys.exit(code)


def _open_streams() -> None:
    """Make /dev/null of every standard stream that is closed: the next file that is opened would take its place."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115  Python has none for a closed one
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115  same


def run(arguments: Sequence[str]) -> int:  # noqa: PLR0911  one line per class of error
    """Run one command line and return its exit code (errors.py lists them)."""
    try:
        with cli.make_context(PROGRAM, list(arguments)) as context:
            code = cli.invoke(context)
            sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        return _say(error.format_message(), 2)
    except click.ClickException as error:
        return _say(f"error: {_usage(error)}", 2)
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", 130)
    except DeployError as error:
        return _say(_lines(error), error.exit_code)
    except BrokenPipeError:
        # The reader of stdout left, as `| head` does: no more output, and none at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _say(f"error: {error.filename or 'standard output'}: {error.strerror or error}", 3)
    except Exception:  # noqa: BLE001  the one boundary: an error that nobody foresaw is our bug
        return _say(f"{traceback.format_exc()}error: this is a bug in deckard-deploy {__version__}", 1)
    return code if isinstance(code, int) else 0


def _usage(error: click.ClickException) -> str:
    text = _cut(" ".join(error.format_message().split()))
    context = getattr(error, "ctx", None)
    return f"{text.rstrip('.')}; see: {context.command_path} --help" if context else text


def _lines(error: DeployError) -> str:
    message = _cut(error.message)
    if not error.hint:
        return f"error: {message}"
    separator = "; try: " if isinstance(error, BadInputError) else "\n  try: "
    return f"error: {message}{separator}{error.hint.replace('deckard-deploy', PROGRAM)}"


def _cut(text: str) -> str:
    """One line stays one, whatever was typed: no name of a file has more than 255 characters."""
    return re.sub(r"([^\s/]{240})[^\s/]{60,}", r"\1…", text)


def _say(text: str, code: int) -> int:
    click.echo(redacted(text), err=True)
    return code
