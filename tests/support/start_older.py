"""Start a deployment with the code of another checkout: PYTHONPATH=CHECKOUT python -P start_older.py FOLDER PROGRAM.

The state directory is FOLDER/state, and PROGRAM replaces `vllm`. Prints the plan's hash and the launch as JSON.

Versions have different names for the same things, so everything that was renamed is found at run time.
"""

import functools
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

# (module, name) of every version, the newest first.
FAKE_DEPLOYMENT = (
    ("tests.support.fake_deployment", "FakeDeployment"),
    ("tests.unit.running.world", "World"),
)
CONTEXT = (("deckard_deploy.running.deploy", "DeploymentContext"), ("deckard_deploy.running.deploy", "Site"))
DEPLOY = (("deckard_deploy.running.deploy", "deploy"), ("deckard_deploy.running.deploy", "bring_up"))
DEADLINE_S = 60.0


def find(known: tuple[tuple[str, str], ...]) -> Any:
    """Return the first of these that the checkout has. Raises ImportError if it has none."""
    for module, name in known:
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"this checkout has none of {known}")


def wait_for_names(fake: Any, release: Any, _runtime: Any) -> None:
    """Return when the server lists its models. Raises TimeoutError."""
    plan = release.plan
    port = plan().port if callable(plan) else plan.port  # a method at 3c0322d
    deadline = time.monotonic() + DEADLINE_S
    while fake.names_on(port) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("the server does not answer")
        time.sleep(0.05)


def main() -> None:
    """Deploy one plan, as `up` does."""
    folder, program = Path(sys.argv[1]), Path(sys.argv[2])
    fake = find(FAKE_DEPLOYMENT)(folder)
    fake.program = program
    plan = fake.plan(restart="on-failure:3")
    context = find(CONTEXT)(
        releases=fake.releases,
        runtimes={"process": fake.runtime()},
        follow=functools.partial(wait_for_names, fake),
        say=lambda _: None,
    )
    launch = find(DEPLOY)(context, *fake.stored(plan))
    print(json.dumps({"plan": plan.hash, "launch": launch.launch_id, "port": plan.port}))


main()
