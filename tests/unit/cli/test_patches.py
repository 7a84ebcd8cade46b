"""The `patches` verbs, against a package whose files are not vLLM's."""

import hashlib
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.patching import plugin
from deckard_deploy.patching.manifest import load_patch_set
from tests.support.json_output import checked

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


def test_list_names_patches_with_conditions(capsys):
    assert run(["patches", "list"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert rows == [
        "eagle  needed with: drafter",
        "serving_chat  needed with: always",
        "reasoning  needed with: always",
        "modelopt  needed with: nvfp4,nvfp4_awq,nvfp4_svd",
    ]


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (["--profile", "spark"], set()),
        (
            ["--profile", "spark", "--drafter", "deckard-e4b"],
            {"eagle", "serving_chat", "reasoning", "modelopt"},
        ),
        (["--profile", "cpu"], {"serving_chat", "reasoning", "modelopt"}),
    ],
)
def test_list_marks_needed_patches(options, needed, capsys):
    assert run(["patches", "list", "--json", *options]) == 0
    listed = checked("patches list", capsys.readouterr().out)["patches"]
    assert {patch["name"] for patch in listed if patch["needed"]} == needed
    assert run(["patches", "list", *options]) == 0
    assert capsys.readouterr().out.count(f"not needed by {options[1]}") == 4 - len(needed)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--release", "latest"], "a version such as 0.19.1 was expected"),
        (["--release", ""], "a version such as 0.19.1 was expected"),
        (["--release", "0.19.1", "--wheel", "x.whl"], "cannot be combined"),
        (["--profile", "spark", "--wheel", "x.whl"], "cannot be combined"),
        (["--image", ""], "cannot be empty"),
    ],
)
def test_invalid_source_is_refused(options, says, capsys):
    assert run(["patches", "check", *options]) == 2
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert says in captured


@pytest.mark.parametrize("release", ["0.8.5.post1", "0.20", f"0.0.{'9' * 5000}"])
def test_matrix_refuses_invalid_release(release, capsys):
    """The index has some; what is compared are three numbers."""
    assert run(["patches", "matrix", release]) == 2
    assert "a version such as 0.19.1 was expected" in capsys.readouterr().err


def test_list_names_alternative_to_drafter_patch(capsys):
    assert run(["patches", "list"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--disable-hybrid-kv-cache-manager" in text
    assert "4.6 times the KV memory" in text


def test_list_json_is_the_manifest(capsys):
    assert run(["patches", "list", "--json"]) == 0
    listed = checked("patches list", capsys.readouterr().out)
    assert set(listed) == {"name", "vllm", "patches"}
    assert [patch["base_sha256"] for patch in listed["patches"]] == [
        one.base_sha256 for one in PATCH_SET.patches
    ]


def test_diff_prints_all_patches(capsys):
    assert run(["patches", "diff"]) == 0
    assert capsys.readouterr().out == "".join(
        PATCH_SET.diff_file(patch).read_text() for patch in PATCH_SET.patches
    )


def test_diff_of_unknown_patch_exits_2(capsys):
    assert run(["patches", "diff", "modelopt"]) == 0
    assert capsys.readouterr().out.count("+++ b/") == 1
    assert run(["patches", "diff", "modelopts"]) == 2
    assert "known: eagle, serving_chat, reasoning, modelopt" in capsys.readouterr().err


def test_check_of_other_files_exits_4(package, capsys):
    assert run(["patches", "check", "--package", str(package), "--json"]) == 4
    captured = capsys.readouterr()
    found = checked("patches check", captured.out)
    assert [one["name"] for one in found] == NAMES
    assert {one["verdict"] for one in found} == {"conflicts"}
    assert "eagle, serving_chat, reasoning, modelopt would not fit" in captured.err


def test_check_skips_patches_not_needed(package, capsys):
    assert run(["patches", "check", "--package", str(package), "--no-drafter", "--quantization", "none"]) == 4
    rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if "not needed" in line]
    assert rows == ["eagle", "modelopt"]


def test_build_of_other_files_writes_nothing(package, tmp_path, capsys):
    assert run(["patches", "build", "--package", str(package), "-o", str(tmp_path / "out")]) == 4
    assert "vllm/v1/spec_decode/eagle.py" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [["--overlay"], ["--import-with", "python3"]])
def test_overlay_needs_installed_vllm(option, tmp_path, capsys):
    assert run(["patches", "build", "--wheel", "x.whl", "-o", str(tmp_path / "out"), *option]) == 2
    assert "need an installed vLLM" in capsys.readouterr().err


def test_unknown_set_and_missing_package_fail(tmp_path, capsys):
    assert run(["patches", "list", "--set", "vllm-0.19.2"]) == 2
    assert run(["patches", "check", "--package", str(tmp_path / "nowhere")]) == 3
    assert "No such file" in capsys.readouterr().err


def test_every_patch_has_a_diff_for_its_target():
    assert [PATCH_SET.diff(patch).target for patch in PATCH_SET.patches] == [
        one.target for one in PATCH_SET.patches
    ]


@pytest.mark.parametrize(
    ("more", "name"), [([], "nvfp4-awq"), (["--lm-head", "fp8"], "lm-head-fp8")], ids=["plain", "lm_head"]
)
def test_wheel_has_hash_of_the_plan(capsys, tmp_path: Path, more: list[str], name: str):
    assert run(["patches", "wheel", *more, "-o", str(tmp_path), "--json"]) == 0
    told = checked("patches wheel", capsys.readouterr().out)
    assert (told["name"], told["sha256"]) == (name, plugin.wheel_sha256(name))
    assert hashlib.sha256(Path(told["path"]).read_bytes()).hexdigest() == told["sha256"]


def test_deckard_yaml_without_patches_fits(capsys, tmp_path: Path):
    """vLLM 0.32.0 needs no patched file, so nothing is downloaded."""
    config = tmp_path / "deckard.yaml"
    config.write_text("profile: spark\nengine: vllm-0.32.0\n")
    assert run(["patches", "check", "-c", str(config), "--json"]) == 0
    captured = capsys.readouterr()
    assert checked("patches check", captured.out) == []
    assert "vllm-0.32.0, which needs no patch" in captured.err
