"""`completion`: the script that makes a shell complete verbs, options and names."""

import os
import shlex
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from deckard_deploy.cli.program import NAME, PROGRAM, VARIABLE


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes bash, zsh or fish complete verbs, options and names.

    bash, in ~/.bashrc: source <(deckard-deploy completion bash). zsh, in ~/.zshrc after compinit: the same with
    zsh. fish: write it to ~/.config/fish/completions/deckard-deploy.fish.

    \b
    Example:
      deckard-deploy completion bash
    """
    script_of = get_completion_class(shell)
    if script_of is None:
        raise click.UsageError(f"this click has no completion for {shell}", context)
    program = shlex.split(PROGRAM)[0]
    in_checkout = "/" in program
    for name in sorted({NAME, os.path.basename(program)}):  # noqa: PTH119  a checkout's is `deckard`
        script = script_of(context.find_root().command, {}, name, VARIABLE).source()
        if in_checkout:  # it is not on PATH
            script = script.replace(f"    (( ! $+commands[{name}] )) && return 1\n", "")
            script = script.replace(f" {name})", f" {shlex.quote(str(Path.cwd() / program))})")
        click.echo(script)
