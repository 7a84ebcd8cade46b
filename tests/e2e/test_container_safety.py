"""A root without capabilities, as the official image runs in every docker plan: what it can read and write."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, Publish
from deckard_deploy.operations.plan import plan_for_host
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.weights import ensure_weights
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.shell import render_run
from deckard_deploy.running.layout import StateDir
from tests.support.ports import free_port

pytestmark = pytest.mark.docker
NAME, STRANGER = "confined", 1234  # no such user in the image
TRY_TO_WRITE = """
import os, sys
read = [open(os.path.join(sys.argv[1], name), "rb").read(1) for name in sorted(os.listdir(sys.argv[1]))]
for folder in sys.argv[2:]:
    with open(os.path.join(folder, "probe"), "w") as file:
        file.write("x")
    os.remove(os.path.join(folder, "probe"))
print(len(read), "files read, caches written as", os.getuid())
"""


@pytest.fixture(scope="module")
def plan(image: str, tmp_path_factory: pytest.TempPathFactory) -> LaunchPlan:
    directory = StateDir(tmp_path_factory.mktemp("confined"))
    deployment = Deployment(
        name=NAME, engine="vllm-0.19.1-cpu-docker", image=image, publish=Publish(port=free_port())
    )
    resolved = resolve(deployment, profile=library.profile("cpu"))
    ensure_weights(resolved, directory, SILENT)
    # No gateway: it would answer in the server's stead.
    return plan_for_host(resolved, directory, None).model_copy(
        update={"user": f"{STRANGER}:{STRANGER}", "gateway": None}
    )


@pytest.mark.parametrize("caches_are_open", [True, False])
def test_capless_root_needs_open_caches(plan: LaunchPlan, *, caches_are_open: bool) -> None:
    """As the official image runs. The closed caches are the control: `up` has to open them."""
    as_root = plan.model_copy(update={"user": None, "patches": (), "request_filter": None})
    words = shlex.split(render_run(as_root).replace("\\\n", " "), comments=True)
    options = words[2 : words.index(str(plan.image))]
    for option in ("--detach", "--init"):
        options.remove(option)
    for option in ("--name", "--entrypoint", "--restart", "--publish"):
        at = options.index(option)
        del options[at : at + 2]
    weights, *caches = [mount.target for mount in plan.mounts]
    for mount in plan.mounts[1:]:
        Path(mount.source).mkdir(parents=True, exist_ok=True)
        os.chown(mount.source, STRANGER, STRANGER)
        Path(mount.source).chmod(0o1777 if caches_are_open else 0o755)
    command = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        *options,
        "--entrypoint",
        "python3",
        str(plan.image),
        "-c",
        TRY_TO_WRITE,
    ]
    done = subprocess.run([*command, weights, *caches], capture_output=True, text=True, check=False)
    if caches_are_open:
        assert "caches written as 0" in done.stdout, done.stderr
    else:
        assert "PermissionError" in done.stderr
