"""The `lock` verb."""

import json

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.patching.manifest import load_patch_set
from tests.support.hub_server import COMMIT
from tests.support.json_output import checked
from tests.support.model_hub import BIG, hub

__all__ = ["hub"]
DIGEST = "sha256:" + "d" * 64
IMAGE, GATEWAY = f"example.org/vllm:v1@{DIGEST}", f"example.org/nginx:v1@{DIGEST}"
IMAGES = ["--image", IMAGE, "--set", f"gateway_image={GATEWAY}"]
SPARK = ["--profile", "spark", "--engine", "vllm-0.19.1", *IMAGES]


def test_lock_has_commits_hashes_digests_patches(hub, tmp_path):
    assert run(["lock", *SPARK]) == 0
    lock = json.loads((tmp_path / "deckard.lock").read_text())
    model = lock["models"]["deckard-31b"]
    assert model["commit"] == COMMIT
    by_path = {file.pop("path"): file for file in model["files"]}
    listed = {one["rfilename"]: one for one in hub.siblings()}
    assert by_path[BIG] == {"size": 300_000, "sha256": listed[BIG]["lfs"]["sha256"]}
    assert by_path["config.json"] == {"size": 9, "git_blob": listed["config.json"]["blobId"]}
    assert lock["images"] == {IMAGE: DIGEST, GATEWAY: DIGEST}
    patches = {one.name: one.patched_sha256 for one in load_patch_set("vllm-0.19.1").patches}
    assert lock["patches"] == {"vllm-0.19.1": dict(sorted(patches.items()))}


@pytest.mark.usefixtures("hub")
def test_second_lock_is_identical(tmp_path, capsys):
    assert run(["lock", *SPARK]) == 0
    first = (tmp_path / "deckard.lock").read_bytes()
    assert run(["lock", *SPARK]) == 0
    assert (tmp_path / "deckard.lock").read_bytes() == first
    capsys.readouterr()
    assert run(["lock", *SPARK, "--check"]) == 0
    assert capsys.readouterr().out == ""


def test_check_names_changes_and_writes_nothing(hub, tmp_path, capsys):
    assert run(["lock", *SPARK]) == 0
    before = (tmp_path / "deckard.lock").read_bytes()
    hub.files[BIG] = b"new"
    hub.files["added.json"] = b"{}"
    capsys.readouterr()
    assert run(["lock", *SPARK, "--check"]) == 4
    moved = capsys.readouterr().out.splitlines()
    assert len(moved) == 2
    assert moved[0].startswith("deckard-31b: added.json: not there -> ")
    assert moved[1].startswith(f"deckard-31b: {BIG}: ")
    assert (tmp_path / "deckard.lock").read_bytes() == before


@pytest.mark.usefixtures("hub")
def test_dry_run_writes_no_lock(tmp_path):
    assert run(["lock", *SPARK, "--dry-run"]) == 0
    assert not (tmp_path / "deckard.lock").exists()


@pytest.mark.usefixtures("hub")
def test_lock_keeps_entries_of_other_deployments(tmp_path):
    assert run(["lock", *SPARK]) == 0
    assert run(["lock", *SPARK, "--model", "deckard-31b-svdquant"]) == 0
    assert json.loads((tmp_path / "deckard.lock").read_text())["models"].keys() == {
        "deckard-31b",
        "deckard-31b-svdquant",
    }


@pytest.mark.parametrize(
    "text",
    [
        '{"sur\\nprise\\u001b[2J": 1}',
        '{"patches": {"a\\u001b": {}}}',
        f'{{"models": {{"a": {{"repo": "a/\\u001b", "commit": "{COMMIT}", "files": []}}}}}}',
    ],
)
def test_terminal_sequence_in_lock_is_not_printed(hub, tmp_path, capsys, text):
    (tmp_path / "deckard.lock").write_text(text)
    assert run(["pull", "--profile", "spark"]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.count("\n") == 1
    assert hub.requests == []


def test_lock_that_is_a_device_is_refused(hub, tmp_path, capsys):
    (tmp_path / "deckard.lock").symlink_to("/dev/null")
    assert run(["pull", "--profile", "spark"]) == 2
    assert "deckard.lock: not a regular file" in capsys.readouterr().err
    assert hub.requests == []


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 2}', '{"models": {"a": {}}}', '{"surprise": 1}', "\xff"]
)
def test_damaged_lock_is_one_line(hub, tmp_path, capsys, text):
    (tmp_path / "deckard.lock").write_bytes(text.encode("latin-1"))
    assert run(["pull", "--profile", "spark"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert hub.requests == []


@pytest.mark.usefixtures("hub")
def test_duplicate_key_in_lock_is_refused(tmp_path, capsys):
    """Whoever reviews reads the first one, and the last one would count."""
    assert run(["lock", *SPARK]) == 0
    path = tmp_path / "deckard.lock"
    path.write_text(path.read_text().replace('"models": {', '"models": {}, "models": {'))
    capsys.readouterr()
    for words in (["pull"], ["lock", "--check"]):
        assert run([*words, *SPARK]) == 2
        said = capsys.readouterr().err
        assert "duplicate key 'models'" in said
        assert "git checkout deckard.lock" in said  # `lock` alone would refuse it as well


@pytest.mark.parametrize(
    ("card", "written"), [("apache-2.0", "apache-2.0"), (None, None), ({"a": 1}, None), ("a\x1b[2J", None)]
)
def test_lock_has_license_of_model_card(hub, tmp_path, capsys, card, written):
    hub.license = card
    assert run(["lock", *SPARK]) == 0
    assert f"license {written or 'not named'}" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "deckard.lock").read_text())["models"]["deckard-31b"].get("license") == written
    )


def test_check_reports_changed_license(hub, capsys):
    hub.license = "apache-2.0"
    assert run(["lock", *SPARK]) == 0
    hub.license = "gemma"
    capsys.readouterr()
    assert run(["lock", *SPARK, "--check"]) == 4
    assert capsys.readouterr().out == "deckard-31b: license apache-2.0 -> gemma\n"


def test_lock_has_drafter(hub, tmp_path):
    hub.license = "apache-2.0"
    assert run(["lock", "--profile", "spark", *IMAGES, "--drafter", "mtp"]) == 0
    models = json.loads((tmp_path / "deckard.lock").read_text())["models"]
    assert models["gemma-4-31b-assistant"]["license"] == "apache-2.0"


@pytest.mark.usefixtures("hub")
def test_check_prints_json(tmp_path, capsys):
    assert run(["lock", *SPARK]) == 0
    capsys.readouterr()
    assert run(["lock", *SPARK, "--check", "--json"]) == 0
    assert checked("lock", capsys.readouterr().out) == {"lock_file": "deckard.lock", "differences": []}
    lock = json.loads((tmp_path / "deckard.lock").read_text())
    lock["models"]["deckard-31b"]["commit"] = "0" * 40
    (tmp_path / "deckard.lock").write_text(json.dumps(lock))
    assert run(["lock", *SPARK, "--check", "--json"]) == 4
    assert "deckard-31b" in " ".join(checked("lock", capsys.readouterr().out)["differences"])
