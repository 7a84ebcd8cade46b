"""./deckard.lock applied to a plan: images by digest, and with --locked every part is required."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from deckard_deploy.cli.main import cli, run
from deckard_deploy.planning.gateway import IMAGE as GATEWAY_TAG
from tests.support.hub_server import Hub

Lock = dict[str, Any]
OTHER = "0" * 64
IMAGE, GATEWAY = f"example.org/vllm:v1@sha256:{'d' * 64}", f"example.org/nginx:v1@sha256:{'e' * 64}"
# A machine with memory of its own, so that the plan does not depend on this one's.
PATCHED = [
    "--profile",
    "b200",
    "--image",
    IMAGE,
    "--set",
    f"gateway_image={GATEWAY}",
    "--drafter",
    "deckard-e4b",
]
PLUGGED = [
    "--profile",
    "b200",
    "--image",
    IMAGE,
    "--set",
    f"gateway_image={GATEWAY}",
    "--engine",
    "vllm-0.32.0",
]
TAG, DIGEST = "vllm/vllm-openai:v0.33.0", "sha256:" + "a" * 64
VERBS = [["plan"], ["render", "compose"], ["render", "command"], ["render", "run"], ["render", "systemd"]]


def change(of: Callable[[Lock], None]) -> Lock:
    """Write the lock again, without something or with something else."""
    file = Path("deckard.lock")
    lock = json.loads(file.read_text())
    of(lock)
    file.write_text(json.dumps(lock))
    return dict(lock)


@pytest.fixture
def locked(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lock", *PATCHED]) == 0
    assert run(["lock", *PLUGGED]) == 0
    assert hub.ranges == []
    capsys.readouterr()


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize("options", [PATCHED, PLUGGED])
def test_locked_plan_passes(verb, options):
    assert run([*verb, *options, "--locked"]) == 0


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize(
    ("options", "edit", "named"),
    [
        (PATCHED, lambda lock: lock["models"].pop("deckard-31b"), "model deckard-31b"),
        (PATCHED, lambda lock: lock["models"].pop("deckard-e4b"), "model deckard-e4b"),
        (PATCHED, lambda lock: lock["images"].pop(IMAGE), "image example.org/vllm:v1"),
        (
            PATCHED,
            lambda lock: lock["images"].update({IMAGE: f"sha256:{OTHER}"}),
            "image example.org/vllm:v1",
        ),
        (PATCHED, lambda lock: lock["images"].pop(GATEWAY), "image example.org/nginx:v1"),
        (PATCHED, lambda lock: lock["patches"].clear(), "patch "),
        (PATCHED, lambda lock: lock["patches"]["vllm-0.19.1"].pop("eagle"), "patch eagle "),
        (PATCHED, lambda lock: lock["patches"]["vllm-0.19.1"].update(eagle=OTHER), "patch eagle "),
        (PLUGGED, lambda lock: lock["plugins"].clear(), "plugin nvfp4-awq "),
        (PLUGGED, lambda lock: lock["plugins"].update({"nvfp4-awq": OTHER}), "plugin nvfp4-awq "),
    ],
)
def test_unlocked_part_is_refused_and_named(capsys, options, edit, named):
    change(edit)
    for verb in (["plan"], ["render", "compose"], ["up"]):
        assert run([*verb, *options, "--locked"]) == 4
        said = capsys.readouterr()
        *_, error, hint = said.err.splitlines()
        assert error.startswith(f"error: not in deckard.lock: {named}")
        assert hint.startswith("  try: deckard-deploy lock --profile ")
        assert said.out == ""
    assert run(["render", "compose", *options]) == 0  # the control: it is the option that refuses


@pytest.mark.usefixtures("locked")
def test_other_repository_is_refused(capsys):
    change(lambda lock: lock["models"]["deckard-31b"].update(repo="someone/else"))
    assert run(["plan", *PATCHED, "--locked"]) == 4
    assert "deckard.lock holds deckard-31b to someone/else at " in capsys.readouterr().err


def test_missing_lock_names_all_parts(hub, capsys):
    assert run(["render", "compose", *PATCHED, "--locked"]) == 4
    error, _ = capsys.readouterr().err.splitlines()
    for named in (
        "model deckard-31b; model deckard-e4b; image ",
        "; image example.org/nginx:v1; ",
        "; patch eagle ",
    ):
        assert named in error
    assert hub.requests == []


@pytest.mark.usefixtures("locked")
def test_unlockable_parts_are_refused(capsys):
    own = ["--profile", "b200", "--model", "tiny-gemma4", "--engine", "vllm-0.19.1-host"]
    for options, named in (
        ([*PATCHED, "--image", "example.org/vllm:v1"], "image example.org/vllm:v1"),
        (["--compat", "seed"], "the folder of weights that --compat seed mounts; image "),
        (own, "the environment of vllm-0.19.1-host, which is your own"),
    ):
        assert run(["render", "command", *options, "--locked"]) == 4
        assert f"not in deckard.lock: {named}" in capsys.readouterr().err


def test_cpu_profile_needs_only_locked_patches(hub, capsys):
    assert run(["render", "command", "--profile", "cpu", "--locked"]) == 4
    assert "not in deckard.lock: patch serving_chat " in capsys.readouterr().err
    assert run(["lock", "--profile", "cpu"]) == 0
    assert run(["render", "command", "--profile", "cpu", "--locked"]) == 0
    assert hub.requests == []


@pytest.mark.usefixtures("locked")
def test_lock_check_reports_other_plugin(capsys):
    change(lambda lock: lock["plugins"].update({"nvfp4-awq": OTHER}))
    assert run(["lock", *PLUGGED, "--check"]) == 4
    assert capsys.readouterr().out.startswith(f"plugin nvfp4-awq: {OTHER[:12]} -> ")


def image(*arguments: str, of: str = "vllm") -> str:
    done = CliRunner().invoke(cli, ["render", "compose", *arguments], catch_exceptions=False)
    service = yaml.safe_load(done.output)["services"][of]
    return str(service["image"])


@pytest.mark.parametrize(
    ("locked", "arguments", "expected"),
    [
        ({TAG: DIGEST}, ["--profile", "spark"], f"{TAG}@{DIGEST}"),
        ({}, ["--profile", "spark"], TAG),
        ({"other/image:1": DIGEST}, ["--profile", "spark"], TAG),
        ({TAG: DIGEST}, ["--profile", "spark", "--image", f"x/y@{DIGEST}"], f"x/y@{DIGEST}"),
        (
            {"ghcr.io/aeon-7/vllm-spark-gemma4-nvfp4-awq:latest": DIGEST},
            ["--compat", "seed"],
            "ghcr.io/aeon-7/vllm-spark-gemma4-nvfp4-awq:latest",
        ),
    ],
)
def test_image_gets_locked_digest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    locked: dict[str, str],
    arguments: list[str],
    expected: str,
) -> None:
    (tmp_path / "deckard.lock").write_text(json.dumps({"images": locked}))
    monkeypatch.chdir(tmp_path)
    assert image(*arguments) == expected


@pytest.mark.parametrize(
    ("locked", "setting", "expected"),
    [
        ({GATEWAY_TAG: DIGEST}, "", f"{GATEWAY_TAG}@{DIGEST}"),
        ({TAG: DIGEST}, "", GATEWAY_TAG),
        ({"mirror/nginx:1": DIGEST}, "mirror/nginx:1", f"mirror/nginx:1@{DIGEST}"),
    ],
)
def test_gateway_image_gets_locked_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: dict[str, str], setting: str, expected: str
) -> None:
    (tmp_path / "deckard.lock").write_text(json.dumps({"images": locked}))
    monkeypatch.chdir(tmp_path)
    more = ["--set", f"gateway_image={setting}"] if setting else []
    assert image("--profile", "spark", *more, of="gateway") == expected


def test_image_without_lock_keeps_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert image("--profile", "spark") == TAG
