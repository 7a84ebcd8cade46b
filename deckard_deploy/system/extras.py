"""The command that installs an extra of this program into the Python that runs it."""

import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

PACKAGE = "deckard-deploy"


def install_command(extra: str) -> str:
    """Return the command that installs the libraries of an extra, such as "report".

    The libraries are named, never this program with its extra: a checkout would be replaced, and an index may have
    somebody else's package of the name. A Python without pip (uv's) is served by uv.
    """
    try:
        declared = requires(PACKAGE) or []
    except PackageNotFoundError:
        declared = []
    wanted = [text.partition(";")[0].strip() for text in declared if _is_of(text, extra)]
    program = [sys.executable, "-m", "pip", "install"]
    if find_spec("pip") is None:
        program = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*program, *wanted])


def _is_of(requirement: str, extra: str) -> bool:
    return re.search(rf"extra == ['\"]{extra}['\"]", requirement) is not None
