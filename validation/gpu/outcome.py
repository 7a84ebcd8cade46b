"""The end of a case in a process of its own: its result is in a file, even if its engines die."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn


def leave(run: Callable[[dict[str, Any]], dict[str, object]]) -> NoReturn:
    """Run the case of the first argument, write its outcome to the second, and end."""
    outcome: dict[str, object] = {}
    try:
        outcome = run(json.loads(Path(sys.argv[1]).read_text()))
    except BaseException as error:  # noqa: BLE001  # a control's failure is its result
        outcome = {"error": f"{type(error).__name__}: {error}"[:600]}
        traceback.print_exc()
    Path(sys.argv[2]).write_text(json.dumps(outcome))
    sys.stdout.flush()
    os._exit(0)  # engines that ended in an error do not come down by themselves
