"""The filter of requests that runs in the engine's API server: one Python file on PYTHONPATH, named by --middleware."""

import hashlib
from pathlib import Path

from deckard_deploy.resources import plugins_dir
from deckard_deploy.system.files import write_atomically

NAME = "request-filter"  # the folder in plugins/, and the name in a plan
MODULE = "deckard_request_filter"
FILE = f"{MODULE}.py"


def source() -> bytes:
    """Return the file."""
    return (plugins_dir() / NAME / FILE).read_bytes()


def sha256() -> str:
    """Return the hash of the file, which is part of the plan."""
    return hashlib.sha256(source()).hexdigest()


def build(file: Path) -> Path:
    """Write the file; one with these bytes keeps its inode, because a running engine may use it."""
    content = source()
    if not file.is_file() or file.read_bytes() != content:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content, mode=0o644)
    return file
