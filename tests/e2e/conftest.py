"""Fixtures of end-to-end tests: the tool as a user calls it, and the reasons to skip a test."""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

from tests.e2e import downloads
from tests.support import docker_deployment

# It needs vLLM in its own process; test_in_engine.py runs it with the engine's Python.
collect_ignore = [] if importlib.util.find_spec("vllm") else ["test_eagle_patch.py"]
HERE = Path(__file__).parent
WITH_ENGINE_IMAGE = (
    "test_container_safety",
    "test_docker_replicas",
    "test_docker_road",
    "test_interrupts",
    "test_patch_image",
    "test_rendered_folder",
)
Tool = Callable[..., subprocess.CompletedProcess[str]]


def docker(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class WholeFiles(LoadScopeScheduling):  # type: ignore[misc]  # same
    """Gives each worker of xdist whole files, since their fixtures start engines.

    All files with tests of docker go to one worker: they make and remove the same images.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = HERE / Path(nodeid.partition("::")[0]).name
        return "docker" if uses_docker(file) else file.stem


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFiles:
    config.option.loadscopereorder = False  # `turn` is the order
    return WholeFiles(config, log)


@functools.cache
def uses_docker(file: Path) -> bool:
    """Return whether a test of the file is marked with docker."""
    return "pytest.mark.docker" in file.read_text(encoding="utf-8")


def turn(item: pytest.Item) -> int:
    """Return a number to sort by: first the long row of docker, then what needs no download, then vLLM."""
    if item.path.parent != HERE:
        return 0
    if uses_docker(item.path):
        return 2 if item.path.stem in WITH_ENGINE_IMAGE else 1
    return 4 if item.get_closest_marker("vllm") else 3


def docker_missing() -> str | None:
    """Return the reason that docker tests cannot run here, or None."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"`{' '.join(command)}`: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests, and skip what this machine cannot run, with a reason; in CI nothing is skipped."""
    items.sort(key=turn)
    if os.environ.get("CI"):
        return
    reason = docker_missing() if any(item.get_closest_marker("docker") for item in items) else None
    for item in items:
        if reason and item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI an end-to-end test that was skipped proves nothing, and fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [report.nodeid for report in reporter.stats.get("skipped", ())] if reporter else []
    if os.environ.get("CI") and any(nodeid.startswith("tests/e2e/") for nodeid in skipped):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory of its own; engines are installed into it once, or into DECKARD_TEST_ENGINES for several."""
    folder = tmp_path_factory.mktemp("home") / "state"
    folder.mkdir(mode=0o700)
    (folder / "cache").mkdir()
    if shared := os.environ.get("DECKARD_TEST_ENGINES"):
        (folder / "engines").symlink_to(shared)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def tool(home: Path) -> Tool:
    """`tool("up", "--profile", "cpu")`: the program as a subprocess, with the state directory above."""

    def call(
        *arguments: str, timeout: float = 900, check: bool = True, **more: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "deckard_deploy", *arguments],
            env={**os.environ, "DECKARD_HOME": str(home), **more},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    return call


@pytest.fixture(scope="session")
def engine_python(home: Path) -> Path:
    """The Python of a real vLLM 0.19.1: what DECKARD_VLLM_PYTHON names, else the tool's own, installed here."""
    named = os.environ.get("DECKARD_VLLM_PYTHON")
    return Path(named) if named else downloads.engine(home / "engines", downloads.OLD)


@pytest.fixture(scope="session")
def new_engine_python(home: Path) -> Path:
    """The same of vLLM 0.32.0: what DECKARD_VLLM_0_32_PYTHON names, or installed here."""
    named = os.environ.get("DECKARD_VLLM_0_32_PYTHON")
    return Path(named) if named else downloads.engine(home / "engines", downloads.NEW)


@pytest.fixture(scope="session")
def image() -> str:
    """An image of the engine's CPU build, made here without a registry unless it is there already."""
    return downloads.image(downloads.ENGINE_IMAGE)


@pytest.fixture(scope="module")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The small image in place of an engine's (tests/support/docker_deployment.py)."""
    docker_deployment.make_image(tmp_path_factory.mktemp("busybox"))
    yield docker_deployment.IMAGE
    docker("rmi", "--force", docker_deployment.IMAGE)


@pytest.fixture(scope="session")
def gateway_image() -> str:
    """An image of Debian's nginx in place of the official one, made in the same way."""
    return downloads.image(downloads.GATEWAY_IMAGE)
