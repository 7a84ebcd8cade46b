"""The `verify` verb."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.weights.folder import ModelFolder
from tests.support.hub_server import Hub
from tests.support.json_output import checked
from tests.support.model_hub import BIG, hub

__all__ = ["hub"]
SPARK = ["--profile", "spark", "--drafter", "none"]


@pytest.fixture
def weights(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(["pull", *SPARK]) == 0
    assert hub.served(BIG) == 300_000
    capsys.readouterr()
    return tmp_path / "state" / "models" / "deckard-31b" / BIG


def flip(path: Path, *, keep_times: bool) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(1234)
        byte = file.read(1)
        file.seek(1234)
        file.write(bytes([byte[0] ^ 1]))
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.usefixtures("weights")
def test_sound_weights_exit_0(capsys):
    assert run(["verify", *SPARK]) == 0
    assert run(["verify", *SPARK, "--fast", "--json"]) == 0
    assert checked("verify", capsys.readouterr().out) == {"models": {"deckard-31b": []}, "right": True}


def test_copied_folder_is_verified(hub: Hub, tmp_path: Path):
    """As `hf download` leaves it, or a copy from another machine."""
    folder = tmp_path / "state" / "models" / "deckard-31b"
    folder.mkdir(parents=True)
    for name, content in hub.files.items():
        (folder / name).write_bytes(content)
    assert run(["verify", *SPARK]) == 0
    assert run(["verify", *SPARK, "--fast"]) == 0


@pytest.mark.usefixtures("weights")
def test_fast_loads_no_docker_or_rich():
    """Half of its time would be imports; benchmarks/pull.py measures the whole command."""
    code = "import sys; from deckard_deploy.cli.main import run; run(sys.argv[1:]); print(*sys.modules)"
    argv = [sys.executable, "-c", code, "verify", *SPARK, "--fast"]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert "deckard_deploy.weights.folder" in loaded
    heavy = {"requests", "huggingface_hub", "filelock", "concurrent.futures", "docker", "rich"}
    assert heavy & set(loaded) == set()


@pytest.mark.parametrize("options", [[], ["--fast"]])
@pytest.mark.parametrize("keep_times", [True, False])
def test_flipped_bit_is_named(weights, capsys, options, keep_times):
    flip(weights, keep_times=keep_times)
    assert run(["verify", *SPARK, *options]) == 4
    assert capsys.readouterr().out.startswith(f"deckard-31b/{BIG}: ")


def test_repair_fetches_wrong_file_once(weights, hub, capsys):
    flip(weights, keep_times=True)
    asked = hub.served(BIG)
    assert run(["verify", *SPARK, "--repair"]) == 0
    assert weights.read_bytes() == hub.files[BIG]
    assert hub.served(BIG) == asked + 300_000
    assert (weights.parent / ".deckard" / "quarantine" / BIG).is_file()
    assert f"deckard-31b/{BIG}" not in capsys.readouterr().out


def test_flipped_bit_with_same_times_is_repaired(weights, hub):
    """Rot on the disk: the file looks as it did when its hash was right."""
    flip(weights, keep_times=True)
    place = ModelFolder(weights.parent)
    manifest = place.manifest()
    assert manifest
    (file,) = (one for one in manifest.needed if one.path == BIG)
    place.record_verified([file])
    assert run(["verify", *SPARK, "--fast"]) == 0
    assert run(["verify", *SPARK]) == 4
    assert run(["verify", *SPARK, "--fast"]) == 4
    place.record_verified([file])
    assert run(["verify", *SPARK, "--repair"]) == 0
    assert weights.read_bytes() == hub.files[BIG]
    assert (weights.parent / ".deckard" / "quarantine" / BIG).is_file()


@pytest.mark.parametrize("name", [b"other.safetensors", b"x.py", b"a\x1b[2J\n.safetensors", b"\xff.py"])
def test_repair_sets_stray_file_aside(weights, hub, capsys, name):
    stray = Path(os.fsdecode(os.fsencode(weights.parent) + b"/" + name))
    stray.write_text("mine")
    asked = hub.served(BIG)
    assert run(["verify", *SPARK, "--repair"]) == 0
    aside = weights.parent / ".deckard" / "quarantine" / stray.name
    assert (stray.exists(), aside.read_text(), hub.served(BIG)) == (False, "mine", asked)
    said = capsys.readouterr()
    assert (said.out, str(aside.parent) in said.err) == ("", True)
    assert all(line.isprintable() for line in said.err.splitlines())


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b"short"), "5 bytes, and 300000 were expected"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "an HTML page"),
        (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
        (
            lambda path: (path.rename(path.with_suffix(".x")), path.symlink_to(path.with_suffix(".x"))),
            "a link to",
        ),
        (lambda path: (path.unlink(), path.symlink_to("gone")), "a link to nothing"),
        (lambda path: path.with_name("other.safetensors").write_bytes(b"x"), "an engine might load it"),
    ],
)
def test_damage_is_named(weights, capsys, damage, cause):
    damage(weights)
    assert run(["verify", *SPARK]) == 4
    assert cause in capsys.readouterr().out


@pytest.mark.parametrize("name", [b"\xff.safetensors", b"a\x1b[2J\n.safetensors"])
def test_control_characters_in_name_are_escaped(weights, capsys, name):
    Path(os.fsdecode(os.fsencode(weights.parent) + b"/" + name)).touch()
    assert run(["verify", *SPARK]) == 4
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert line.endswith("an engine might load it")


def test_verify_needs_no_hub(weights, hub):
    hub.api_status = [(500, {})] * 99
    assert run(["verify", *SPARK]) == 0
    assert weights.is_file()
