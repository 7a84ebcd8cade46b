"""The part that runs on a node, by its text: `look`, `install` and `prepare`; and from the archive: the verb itself.

It uses the standard library alone. stdin of the first three: this text, then their data.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import platform
import select
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

HOME = Path(os.path.expanduser("~")) / ".cache" / "deckard-deploy" / "node"  # noqa: PTH111  $HOME, as a shell has it
LEFTOVER_S = 86_400
UNFIT, DAMAGED = 97, 98  # exit codes; operations/node.py reads them


def look() -> None:
    """Print what the archive must be made for."""
    HOME.mkdir(mode=0o700, parents=True, exist_ok=True)
    _print(
        {
            "python": sys.executable,
            "version": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "machine": platform.machine(),
            "have": [each.name for each in HOME.iterdir()],
            "home": str(HOME),
        }
    )


def _print(facts: "dict[str, object]") -> None:
    sys.stdout.write(f"\n{json.dumps(facts)}\n")


def prepare() -> None:
    """Store a call, for this user alone, and print the name of its folder."""
    call = json.load(sys.stdin)
    HOME.mkdir(mode=0o700, parents=True, exist_ok=True)
    for leftover in (*HOME.glob("call-*"), *HOME.glob("new-*")):
        if leftover.stat().st_mtime < time.time() - LEFTOVER_S:
            shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="call-", dir=HOME))
    try:
        for name, content in call.pop("files").items():
            file = folder / "files" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_bytes(base64.b64decode(content))
        (folder / "files").mkdir(exist_ok=True)
        (folder / "call.json").touch(mode=0o600)
        (folder / "call.json").write_text(json.dumps(call))
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _print({"call": folder.name})


def install(name: str) -> None:
    """Unpack the archive of stdin under the name that is its hash, whole or not at all."""
    try:
        content = gzip.decompress(sys.stdin.buffer.read())
    except (OSError, EOFError):
        sys.exit(DAMAGED)
    if hashlib.sha256(content).hexdigest() != name:
        sys.exit(DAMAGED)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=HOME))
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            # Python before 3.11.4 has no filters; the hash has proven that this tool made the archive.
            checked = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(new, **checked)  # type: ignore[arg-type]  # noqa: S202
        if not (HOME / name).exists():
            new.rename(HOME / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def run(name: str) -> None:
    """Run the verb of a stored call. The call is read once and removed: it may hold a token."""
    folder = HOME / name
    file = folder / "call.json"
    call = json.loads(file.read_text())
    file.unlink()
    os.environ.update(call["environment"])
    os.chdir(folder / "files")
    if not os.isatty(1):
        threading.Thread(target=_interrupt_with_connection, daemon=True).start()
    from deckard_deploy.cli.main import main

    sys.argv = ["deckard-deploy", *call["arguments"]]
    try:
        main()
    except SystemExit as ended:
        if ended.code == 0 and {"down", "--purge"} <= set(call["arguments"]):
            _remove_unused(call["arguments"], folder)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _interrupt_with_connection() -> None:
    """Interrupt this process, as ^C does, once the reader of its output is gone."""
    watched = select.poll()
    for descriptor in (1, 2):
        watched.register(descriptor, 0)
    watched.poll()  # with no events asked for, only an error or a hang-up
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.kill(os.getpid(), signal.SIGINT)


def _remove_unused(arguments: "list[str]", call: Path) -> None:
    """Remove the archives, unless a deployment or another call is left; another state folder is not looked for."""
    from deckard_deploy.operations.node import has_deployments

    asked_to_keep = "--dry-run" in arguments or any(word.startswith("--state-dir") for word in arguments)
    others = [folder for folder in HOME.glob("call-*") if folder != call]
    if not (asked_to_keep or others or has_deployments()):
        shutil.rmtree(HOME, ignore_errors=True)


def main() -> None:
    """Run the action that the command line names."""
    action, *name = sys.argv[1:]
    try:
        if action == "look":
            look()
        elif action == "prepare":
            prepare()
        elif action == "install":
            install(name[0])
        else:
            run(name[0])
    except OSError as error:
        sys.stderr.write(f"{error.filename or HOME}: {error.strerror or error}\n")
        sys.exit(UNFIT)


if __name__ == "__main__":
    main()
