"""A verb on another machine: this tool itself runs there, through the user's own OpenSSH."""

import base64
import gzip
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError, NetworkError
from deckard_deploy.operations import node_archive
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.resources import PACKAGE
from deckard_deploy.running.layout import state_directory
from deckard_deploy.system import ssh
from deckard_deploy.system.commands import find_program, last_output_line

_SCRIPT = PACKAGE / "cli" / "on_node.py"
_NO_PYTHON, _DAMAGED = 96, 98  # the second: cli/on_node.py; every other code is an unfit node
# Each candidate must be as new as pyproject.toml's requires-python.
_PYTHON = (
    "for p in python3 python3.14 python3.13 python3.12 python3.11; do "
    'if "$p" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then exec "$p" -c {code}; fi; '
    f"done; python3 -V 2>&1 || echo none; exit {_NO_PYTHON}"
)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A command line for a node. files: the user's files that it names, by their path in its working folder."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)


def run(node: str, call: Call, report: Reporter) -> int:
    """Run the command line on the node, and return its exit code there.

    Raises NetworkError when ssh failed, EnvironmentUnfitError for a node that cannot run it, IntegrityError.
    """
    facts = _facts(node, _ask(node, ("look",), b"", report))
    archive = node_archive.build(facts["version"], facts["machine"], report.command)
    name = hashlib.sha256(archive).hexdigest()
    if name not in facts["have"]:
        report.say(f"copying  deckard-deploy to {node}")
        _ask(node, ("install", name), gzip.compress(archive, 6), report)
    # The call may hold a token, so it is stored there last: nothing but the verb itself can fail after it.
    stored = _facts(node, _ask(node, ("prepare",), _content(call), report))["call"]
    remote = shlex.join((facts["python"], f"{facts['home']}/{name}/{node_archive.LAUNCHER}", "run", stored))
    terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    argv = ssh.command(node, f"exec {remote}", terminal=terminal)
    report.command(f"$ {shlex.join(argv)}")
    code = _run_to_end(argv)
    if code == ssh.FAILED:
        raise NetworkError(
            f"node {node}: the connection was cut; the command there ended as ^C ends it",
            hint="the same command again: it goes on from there",
        )
    return code


def has_deployments() -> bool:
    """Return True if this machine's own state directory has a deployment."""
    return bool(state_directory(None).deployments())


def _run_to_end(argv: tuple[str, ...]) -> int:
    with subprocess.Popen(argv) as running:
        try:
            return running.wait()
        except KeyboardInterrupt:
            # ssh got the same ^C. SIGTERM comes to this process alone.
            running.terminate()
            running.wait()
            raise


def _content(call: Call) -> bytes:
    files = {name: base64.b64encode(content).decode() for name, content in call.files.items()}
    content = {"arguments": call.arguments, "environment": dict(call.environment), "files": files}
    return json.dumps(content).encode()


def _facts(node: str, answer: str) -> dict[str, Any]:
    lines = answer.strip().splitlines()  # a login shell may print something of its own before
    try:
        return dict(json.loads(lines[-1]))
    except (IndexError, ValueError, TypeError) as error:
        text = lines[-1] if lines else "nothing"
        raise EnvironmentUnfitError(
            f"node {node}: its login shell answered {text[:80]!r}", hint=f"ssh {node} true must print nothing"
        ) from error


def _ask(node: str, action: tuple[str, ...], content: bytes, report: Reporter) -> str:
    """Run this tool's script for nodes there with content on stdin, and return what it printed."""
    script = _SCRIPT.read_bytes()
    read = f"import sys; exec(sys.stdin.buffer.read({len(script)}))"
    words = " ".join((shlex.quote(read), *map(shlex.quote, action)))
    argv = ssh.command(node, f"exec sh -c {shlex.quote(_PYTHON.replace('{code}', words))}")
    report.command(f"$ {shlex.join(argv[:-1])} ...")
    find_program("ssh", os.environ)
    done = subprocess.run(argv, input=script + content, capture_output=True, check=False)
    output = done.stdout.decode(errors="replace")
    errors = done.stderr.decode(errors="replace")
    if done.returncode == ssh.FAILED or done.returncode < 0:
        raise ssh.failure(node, errors)
    if done.returncode == _NO_PYTHON:
        raise EnvironmentUnfitError(
            f"node {node}: Python 3.11 or later is needed, found: {last_output_line(output)}",
            hint="apt-get install python3, there",
        )
    if done.returncode == _DAMAGED:
        raise IntegrityError(
            f"node {node}: the archive was damaged on the way", hint="the same command again"
        )
    if done.returncode:
        raise EnvironmentUnfitError(
            f"node {node}: {last_output_line(errors or output)}", hint=f"ssh {node} df -h"
        )
    return output
