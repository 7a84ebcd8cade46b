"""The `patches` verbs, against a package whose files are not vLLM's."""

import hashlib
import json
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.patching import plugin
from deckard_deploy.patching.manifest import load_patch_set

PATCH_SET = load_patch_set("vllm-0.19.1")
NAMES = [patch.name for patch in PATCH_SET.patches]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Modules at the right places, with other content."""
    folder = tmp_path / "site/vllm"
    for patch in PATCH_SET.patches:
        path = folder.parent / patch.target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    (folder / "__init__.py").write_text("")
    return folder


def test_list_names_every_patch_and_when_it_is_needed(capsys):
    assert run(["patches", "list"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert rows == [
        "eagle  needed with: drafter",
        "serving_chat  needed with: always",
        "modelopt  needed with: nvfp4,nvfp4_awq,nvfp4_svd",
    ]


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (["--profile", "spark"], {"serving_chat", "modelopt"}),
        (["--profile", "spark", "--drafter", "deckard-e4b"], {"eagle", "serving_chat", "modelopt"}),
        (["--profile", "cpu"], {"serving_chat", "modelopt"}),
    ],
)
def test_list_says_what_a_plan_needs(options, needed, capsys):
    assert run(["patches", "list", "--json", *options]) == 0
    listed = json.loads(capsys.readouterr().out)["patches"]
    assert {patch["name"] for patch in listed if patch["needed"]} == needed
    assert run(["patches", "list", *options]) == 0
    assert capsys.readouterr().out.count(f"not needed by {options[1]}") == 3 - len(needed)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--release", "latest"], "a version such as 0.19.1 was expected"),
        (["--release", ""], "a version such as 0.19.1 was expected"),
        (["--release", "0.19.1", "--wheel", "x.whl"], "cannot be combined"),
        (["--image", ""], "cannot be empty"),
    ],
)
def test_a_source_that_is_none_is_refused(options, says, capsys):
    assert run(["patches", "check", *options]) == 2
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert says in captured


@pytest.mark.parametrize("release", ["0.8.5.post1", "0.20", f"0.0.{'9' * 5000}"])
def test_a_release_that_is_no_three_numbers_is_in_no_matrix(release, capsys):
    """The index has some; what is compared are three numbers."""
    assert run(["patches", "matrix", release]) == 2
    assert "a version such as 0.19.1 was expected" in capsys.readouterr().err


def test_list_knows_the_way_without_the_drafter_patch(capsys):
    assert run(["patches", "list"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--disable-hybrid-kv-cache-manager" in text
    assert "4.6 times the KV memory" in text


def test_list_as_json_is_the_manifest(capsys):
    assert run(["patches", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(listed) == {"name", "vllm", "patches"}
    assert [patch["base_sha256"] for patch in listed["patches"]] == [
        one.base_sha256 for one in PATCH_SET.patches
    ]


def test_diff_prints_the_patches_as_they_are(capsys):
    assert run(["patches", "diff"]) == 0
    assert capsys.readouterr().out == "".join(
        PATCH_SET.diff_file(patch).read_text() for patch in PATCH_SET.patches
    )


def test_diff_of_one_and_of_an_unknown_one(capsys):
    assert run(["patches", "diff", "modelopt"]) == 0
    assert capsys.readouterr().out.count("+++ b/") == 1
    assert run(["patches", "diff", "modelopts"]) == 2
    assert "known: eagle, serving_chat, modelopt" in capsys.readouterr().err


def test_check_reports_every_patch_and_fails_with_4(package, capsys):
    assert run(["patches", "check", "--package", str(package), "--json"]) == 4
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [one["name"] for one in found] == NAMES
    assert {one["verdict"] for one in found} == {"conflicts"}
    assert "eagle, serving_chat, modelopt would not fit" in captured.err


def test_check_of_a_plan_without_drafter_and_with_plain_weights(package, capsys):
    assert run(["patches", "check", "--package", str(package), "--no-drafter", "--quantization", "none"]) == 4
    rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if "not needed" in line]
    assert rows == ["eagle", "modelopt"]


def test_build_refuses_other_files_and_writes_nothing(package, tmp_path, capsys):
    assert run(["patches", "build", "--package", str(package), "-o", str(tmp_path / "out")]) == 4
    assert "vllm/v1/spec_decode/eagle.py" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [["--overlay"], ["--import-with", "python3"]])
def test_an_overlay_needs_an_installed_vllm(option, tmp_path, capsys):
    assert run(["patches", "build", "--wheel", "x.whl", "-o", str(tmp_path / "out"), *option]) == 2
    assert "need an installed vLLM" in capsys.readouterr().err


def test_an_unknown_set_and_a_missing_package(tmp_path, capsys):
    assert run(["patches", "list", "--set", "vllm-0.19.2"]) == 2
    assert run(["patches", "check", "--package", str(tmp_path / "nowhere")]) == 3
    assert "No such file" in capsys.readouterr().err


def test_the_real_release_has_a_diff_for_every_target():
    assert [PATCH_SET.diff(patch).target for patch in PATCH_SET.patches] == [
        one.target for one in PATCH_SET.patches
    ]


def test_wheel_writes_the_file_that_a_plan_names(capsys, tmp_path: Path):
    assert run(["patches", "wheel", "-o", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sha256"] == plugin.wheel_sha256("nvfp4-awq")
    assert hashlib.sha256(Path(told["path"]).read_bytes()).hexdigest() == told["sha256"]
