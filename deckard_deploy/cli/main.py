"""The program: its verbs, and the one boundary that turns every error into a line and an exit code."""

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
from click.shell_completion import CompletionItem, shell_complete

from deckard_deploy.cli.names import is_profile
from deckard_deploy.cli.node import VERBS as NODE_VERBS
from deckard_deploy.cli.node import with_node
from deckard_deploy.cli.output import echo_error
from deckard_deploy.cli.program import NAME, PROGRAM, VARIABLE, VerbContext, typed, with_verb_contexts
from deckard_deploy.errors import BadInputError, DeployError
from deckard_deploy.resources import tool_version
from deckard_deploy.system.suggestion import closest

# Verb -> one line of help. The module of a verb is imported only when the verb is called: `--help` must not
# load pydantic, docker or requests. A test compares these lines with those of the commands.
VERBS = {
    "up": "Start the endpoint and wait until it is proven ready.",
    "down": "Stop the endpoint and remove what was started.",
    "start": "Start the release again that `down` stopped.",
    "status": "Report what runs, since when, and whether it answers.",
    "logs": "Print the engine's log.",
    "wait": "Wait until the running endpoint is ready.",
    "watch": "Keep the current release answering.",
    "service": "Start the endpoint with the machine, by a systemd unit that runs `watch`.",
    "switch": "Stop one deployment and start another.",
    "rollback": "Roll back to the previous release.",
    "adopt": "Adopt a stack that was started by hand from a folder of `render all`.",
    "chat": "Send a message and print the answer; without a message, converse line by line.",
    "connect": "Print the configuration of a client for the running endpoint.",
    "bench": "Measure the running endpoint with its engine's own benchmark.",
    "compare": "Compare two served models on a text of your own.",
    "tune": "Find the fastest settings of a deployment on this machine.",
    "top": "Watch throughput, latency, queue, KV cache and drafter.",
    "monitor": "Run Prometheus and Grafana next to the endpoint, on this machine only.",
    "keys": "Create, list, limit and revoke the API keys of clients.",
    "plan": "Show what `up` would run, and what would change.",
    "render": "Write the compose file or the command line of a plan.",
    "profiles": "List the hardware profiles that this machine can run, or show one.",
    "models": "List models, show one, or add one of your own.",
    "engines": "List engines, or show one.",
    "qualify": "Check a vLLM release: options, plugin, log lines, clients, advisories.",
    "lock": "Resolve models to commits and hashes, images to digests, patches and plugins to hashes.",
    "pull": "Download a deployment's weights, with resume and verification.",
    "verify": "Check the hashes of a deployment's weights.",
    "inspect": "Show the contents and the faults of a checkpoint.",
    "repair": "Write a repaired copy of a checkpoint into a new folder.",
    "quantize": "Quantize a Gemma 4 in BF16 to NVFP4.",
    "patches": "List, check and build the vLLM patches.",
    "sbom": "List the components of a deployment as a CycloneDX document.",
    "diagnose": "Find the cause of a failure in a log of vLLM or docker.",
    "doctor": "Check this machine for known problems.",
    "support": "Collect facts, findings, plans and the ends of logs for a bug report.",
    "completion": "Print the script that makes bash, zsh or fish complete verbs, options and names.",
}
# The order of `--help`. A verb that no section has is listed last.
SECTIONS = {
    "Run": "up down start switch status logs wait watch service rollback chat connect adopt",
    "Measure and monitor": "top bench compare tune monitor",
    "Plan and write files": "plan render profiles models engines qualify lock sbom",
    "Weights and patches": "pull verify inspect repair quantize patches",
    "This machine": "doctor diagnose support keys completion",
}
# What other tools call these verbs.
_MEANT = {
    "stop": "down",
    "run": "up",
    "serve": "up",
    "deploy": "up",
    "restart": "up",
    "ps": "status",
    "ls": "status",
    "list": "status",
    "log": "logs",
    "ask": "chat",
    "download": "pull",
    "check": "doctor",
    "help": "--help",
    "version": "--version",
    "uninstall": "down --purge",
}
_MODULES = {"profiles": "catalogs", "models": "catalogs", "engines": "catalogs"}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    context_class = VerbContext

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = import_module(f"deckard_deploy.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command = getattr(module, cmd_name)
        if not isinstance(command, click.Command):
            return None
        if cmd_name in NODE_VERBS:
            command = with_node(command)
        return with_verb_contexts(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that the first word names. Raises click.UsageError with the verb that was meant."""
        name = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            meant = _MEANT.get(name)
            near = f"; did you mean {meant!r}?" if meant else closest(name, VERBS)
            raise click.UsageError(f"No such command {name!r}{near}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the verbs that begin with the text, without loading their modules."""
        verbs = [
            CompletionItem(verb, help=text) for verb, text in VERBS.items() if verb.startswith(incomplete)
        ]
        return verbs or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        left = dict(VERBS)
        for heading, verbs in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(verb, left.pop(verb)) for verb in verbs.split() if verb in left])
        if left:
            with formatter.section("Other"):
                formatter.write_dl(list(left.items()))


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001  click's
    if value:
        click.echo(f"deckard-deploy, version {tool_version()}")
        context.exit()


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the commands of other programs that are run.")
def cli(*, verbose: bool) -> None:
    """Turn a hardware profile into a verified, running, OpenAI-compatible vLLM endpoint.

    \b
    Example:
      deckard-deploy up --profile cpu
    """


def main() -> NoReturn:
    """Run the console script: the command line of this process."""
    _open_streams()  # guard: F47
    # They interrupt as ^C does, which a background job of a script does not receive.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # guard: F3
    # As mypy does: imports make tens of thousands of objects that stay, and every collection would search
    # them in vain.
    gc.set_threshold(100_000)
    instruction = os.environ.get(VARIABLE)
    code = complete(instruction) if instruction else run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        # Already reported. What is left in the buffer would fail again as the interpreter ends, with exit 120.
        _discard_stdout()
    # Without it the interpreter searches all of them for garbage as it ends: 15 ms of a `plan`.
    gc.freeze()
    sys.exit(code)


def complete(instruction: str) -> int:
    """Answer a shell that completes a command line (completion.py). A broken state directory completes nothing."""
    try:
        return shell_complete(cli, {}, NAME, VARIABLE, instruction)
    except (DeployError, OSError):
        return 1


def _open_streams() -> None:
    """Open /dev/null for every closed standard stream: the next file would take its number."""
    descriptor = 0
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    # Python has no object for a stream that was closed.
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")


def _discard_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(arguments: Sequence[str]) -> int:  # noqa: PLR0911  one line per class of error
    """Run one command line. Return its exit code (errors.py lists them)."""
    context = None
    try:
        with cli.make_context(PROGRAM, list(arguments)) as context:
            context.obj = tuple(arguments)  # --node gives them to another machine
            code = cli.invoke(context)
            sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        return _fail(error.format_message(), 2)
    except click.ClickException as error:
        return _fail(f"error: {_usage_text(error)}", 2)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except DeployError as error:
        return _fail(_error_text(error, context), error.exit_code)
    except BrokenPipeError:
        # The reader of stdout has left, as `| head` does: nothing more is written, not even at the
        # interpreter's exit.
        _discard_stdout()
        return 141
    except OSError as error:
        place = error.filename or "standard output"
        return _fail(f"error: {place}: {error.strerror or error}", 3)
    except Exception:  # noqa: BLE001  the one boundary: an unforeseen error is our bug
        bug = (
            f"error: this is a bug in deckard-deploy {tool_version()}; report it where you got this program, "
            "with all these lines and the archive of: deckard-deploy support"
        )
        return _fail(f"{traceback.format_exc()}{bug}", 1)
    if isinstance(code, int):
        return code
    return 0


def _usage_text(error: click.ClickException) -> str:
    text = _shorten_words(" ".join(error.format_message().split()))
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        near = closest(error.option_name, error.possibilities or ())
        text = f"No such option {error.option_name!r}{near}"
    if context is None:
        return text
    return f"{text.rstrip('.')}{_profile_meant(text)}; see: {context.command_path} --help"


def _profile_meant(text: str) -> str:
    """Return a suggestion for `up spark`: the option that takes the name."""
    found = re.search(r"unexpected extra argument \((\S+)\)", text)
    if found and is_profile(found[1]):
        return f"; did you mean --profile {found[1]}?"
    return ""


def _error_text(error: DeployError, context: click.Context | None) -> str:
    message = typed(_shorten_words(error.message), context)
    if not error.hint:
        return f"error: {message}"
    separator = "; try: " if isinstance(error, BadInputError) else "\n  try: "
    return f"error: {message}{separator}{typed(error.hint, context)}"


def _shorten_words(text: str) -> str:
    """Return the text with every word of 300 characters or more cut to 240. A file name has at most 255."""
    return re.sub(r"([^\s/]{240})[^\s/]{60,}", r"\1…", text)


def _fail(text: str, code: int) -> int:
    echo_error(text)
    return code
