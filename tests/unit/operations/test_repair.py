"""A repaired copy: its scales, its files, and what is refused before anything is written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, DeployError, IntegrityError
from deckard_deploy.operations.derived_models import derive_model
from deckard_deploy.operations.inspect import inspect_checkpoint
from deckard_deploy.operations.options import Choice, LockUse
from deckard_deploy.operations.repair import Repair, repair_checkpoint
from deckard_deploy.operations.verify import find_problems, repair
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.safetensors_header import read_header
from tests.support.hub_server import COMMIT, Hub, running
from tests.support.recording_reporter import RecordingReporter

LINEAR = "model.language_model.layers.0.mlp.up_proj"
BASE = f"owner/model@{COMMIT}"
LOST = b"\x77" * 8
MISSING = ("tokenizer.json", "chat_template.jinja", "processor_config.json", "generation_config.json")


def patch(folder: Path, tensor: str, place: int, data: bytes) -> None:
    """Write bytes into a tensor of a checkpoint of one file."""
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(read_header(path)[tensor].begin + place)
        file.write(data)


def data_of(folder: Path, tensor: str) -> bytes:
    path = folder / "model.safetensors"
    entry = read_header(path)[tensor]
    return path.read_bytes()[entry.begin : entry.end]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return gemma4.write(tmp_path / "tiny", quantization="nvfp4")


@pytest.fixture
def export(tiny: Path, tmp_path: Path) -> Path:
    """Return a checkpoint as ModelOpt 0.42.0 leaves it: a NaN scale with codes, two without, and no other files."""
    folder = Path(shutil.copytree(tiny, tmp_path / "export"))
    patch(folder, f"{LINEAR}.weight_scale", 0, b"\x7f\xff\x7f")
    patch(folder, f"{LINEAR}.weight", 8, LOST + b"\xff" * 8)
    for name in MISSING:
        (folder / name).unlink()
    return folder


@pytest.fixture
def base(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub({path.name: path.read_bytes() for path in tiny.iterdir()})
    with running(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tiny.parent / "hub-cache"))
        yield hub


def repaired(source: Path, target: Path, *, base: str | None = BASE, dry_run: bool = False) -> Repair:
    return repair_checkpoint(
        str(source), target, base, source.parent / "state", RecordingReporter(), dry_run=dry_run
    )


@pytest.mark.usefixtures("base")
def test_copy_has_sound_scales_and_all_files(export: Path, tiny: Path, tmp_path: Path) -> None:
    before = content(export)
    new = tmp_path / "new"
    done = repaired(export, new)
    assert [tensor[::2] for tensor in done.scales] == [(f"{LINEAR}.weight_scale", 1)]
    assert done.scales[0].zero == 2
    assert set(done.added) == set(MISSING)
    assert data_of(new, f"{LINEAR}.weight_scale")[:3] == b"\x7e\x00\x00"
    assert data_of(new, f"{LINEAR}.weight_scale")[3:] == data_of(export, f"{LINEAR}.weight_scale")[3:]
    assert data_of(new, f"{LINEAR}.weight") == data_of(export, f"{LINEAR}.weight")
    for name in MISSING:
        assert (new / name).read_bytes() == (tiny / name).read_bytes()
    assert content(export) == before
    assert inspect_checkpoint(str(new), None, tmp_path).found.faults == ()
    assert inspect_checkpoint(str(export), None, tmp_path).found.faults != ()
    assert derive_model(str(new), None, RecordingReporter()).warnings == ()


@pytest.mark.usefixtures("base")
def test_verify_checks_the_copy_by_its_own_manifest(export: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    repaired(export, new)
    choice = Choice(profile="cpu", settings=(f"model={new}", "drafter=none", "engine=vllm-0.32.0-cpu"))
    arguments = (choice, tmp_path / "state", RecordingReporter(), LockUse())
    assert find_problems(*arguments) == {"local--new": []}
    assert find_problems(*arguments, fast=True) == {"local--new": []}
    patch(new, f"{LINEAR}.weight", 100, b"\x01\x02")
    (problem,) = find_problems(*arguments)["local--new"]
    assert problem.path == "model.safetensors"
    with pytest.raises(IntegrityError, match="no repository has it"):
        repair(*arguments)


@pytest.mark.usefixtures("base")
def test_dry_run_names_the_same_and_writes_nothing(export: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    dry = repaired(export, new, dry_run=True)
    assert not new.exists()
    assert repaired(export, new) == dry._replace(written=str(new))


def test_sound_checkpoint_is_not_copied(tiny: Path, tmp_path: Path) -> None:
    done = repaired(tiny, tmp_path / "new", base=None)
    assert (done.written, done.scales, done.added) == (None, (), ())
    assert not (tmp_path / "new").exists()


SCALES = {
    "every scale is NaN": (f"{LINEAR}.weight_scale", b"\x7f" * (512 * 16)),
    "weight_scale_2: NaN or infinite": (f"{LINEAR}.weight_scale_2", b"\x00\x00\xc0\x7f"),
    "input_scale: NaN or infinite": (f"{LINEAR}.input_scale", b"\x00\x00\x80\x7f"),
    "input_scale: zero": (f"{LINEAR}.input_scale", bytes(4)),
}


@pytest.mark.parametrize("line", SCALES)
def test_scale_that_nothing_restores_is_named(tiny: Path, tmp_path: Path, line: str) -> None:
    tensor, data = SCALES[line]
    patch(tiny, tensor, 0, data)
    with pytest.raises(IntegrityError, match=line) as refused:
        repaired(tiny, tmp_path / "new", base=None)
    assert "\n" not in refused.value.message
    assert not (tmp_path / "new").exists()


def test_linear_of_zeros_is_repaired(tiny: Path, tmp_path: Path) -> None:
    """ModelOpt computes its block scales as 0/0."""
    patch(tiny, f"{LINEAR}.weight_scale", 0, b"\x7f" * (512 * 16))
    patch(tiny, f"{LINEAR}.weight", 0, b"\x77" * (512 * 128))
    patch(tiny, f"{LINEAR}.weight_scale_2", 0, bytes(4))
    repaired(tiny, tmp_path / "new", base=None)
    assert not any(data_of(tmp_path / "new", f"{LINEAR}.weight_scale"))


def link_out(export: Path) -> None:
    (export / "more.json").symlink_to("/etc/hostname")


def code(export: Path) -> None:
    (export / "modeling.py").write_text("")


def pipe(export: Path) -> None:
    os.mkfifo(export / "more.json")


def cut(export: Path) -> None:
    os.truncate(export / "model.safetensors", 1_000_000)


def other_vocabulary(export: Path) -> None:
    path = export / "config.json"
    path.write_text(path.read_text().replace('"vocab_size": 512', '"vocab_size": 500'))


def nothing(_: Path) -> None:
    pass


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    ("damage", "origin", "line"),
    [
        (nothing, None, "tokenizer.json is missing"),
        (nothing, "owner/model@main", "no repository at a commit of 40 hex digits"),
        (nothing, "owner/model", "no repository at a commit of 40 hex digits"),
        (nothing, f"../model@{COMMIT}", "no repository at a commit"),
        (link_out, BASE, "is a link out of the folder"),
        (pipe, BASE, "neither a file nor a folder"),
        (cut, BASE, "cut: 1000000 bytes"),
        (code, BASE, "could run code"),
        (other_vocabulary, BASE, "has a vocabulary of 512 tokens"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    export: Path, tmp_path: Path, damage: Callable[[Path], None], origin: str | None, line: str
) -> None:
    damage(export)
    with pytest.raises(DeployError, match=line) as refused:
        repaired(export, tmp_path / "new", base=origin)
    assert "\n" not in refused.value.message
    assert not (tmp_path / "new").exists()
    assert list(tmp_path.glob(".tmp-*")) == []


def test_existing_target_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(BadInputError, match="is there already"):
        repaired(tiny, tmp_path / "new", base=None)
    with pytest.raises(BadInputError, match="is not a folder"):
        repaired(tiny, tmp_path / "none" / "new", base=None)


def test_target_inside_of_the_source_is_refused(tiny: Path) -> None:
    with pytest.raises(BadInputError, match="is inside of"):
        repaired(tiny, tiny / "new", base=None)


def test_base_without_a_tokenizer_is_refused(export: Path, tmp_path: Path, base: Hub) -> None:
    del base.files["tokenizer.json"]
    with pytest.raises(IntegrityError, match=r"tokenizer\.json is missing.*has none either"):
        repaired(export, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_base_that_asks_for_code_is_refused(export: Path, tmp_path: Path, base: Hub) -> None:
    base.files["processor_config.json"] = b'{"auto_map": {"AutoProcessor": "evil.Evil"}}'
    with pytest.raises(IntegrityError, match="auto_map"):
        repaired(export, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# Kills a repair in a child at its first, second ... step in the hidden folder, and prints what is left of each.
KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
from deckard_deploy.operations.repair import repair_checkpoint
from deckard_deploy.operations.reporting import SILENT
source, new, left = sys.argv[1], Path(sys.argv[2]), []
def repair_until(last):
    seen = 0
    def count(event, arguments):
        nonlocal seen
        if event in ("open", "os.rename", "os.chmod", "os.mkdir") and ".tmp-" in str(arguments[0]):
            seen += 1
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    repair_checkpoint(source, new, None, new.parent / "state", SILENT)
def names(folder):
    return sorted(path.name for path in folder.glob("*") if path.is_file())
while not left or left[-1]["killed"]:
    child = os.fork()
    if not child:
        repair_until(len(left) + 1)
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
    hidden = [names(each) for each in new.parent.glob(".tmp-*")]
    left.append({"killed": killed, "new": names(new), "hidden": hidden})
    if killed:
        shutil.rmtree(new, ignore_errors=True)
print(json.dumps(left))
"""


@pytest.mark.slow
def test_killed_repair_leaves_nothing_that_up_would_take(tiny: Path, tmp_path: Path) -> None:
    patch(tiny, f"{LINEAR}.weight_scale", 0, b"\x7f")
    arguments = [sys.executable, "-c", KILLED, str(tiny), str(tmp_path / "new")]
    *killed, whole = json.loads(subprocess.run(arguments, stdout=subprocess.PIPE, check=True).stdout)
    assert len(killed) > 20
    assert whole["hidden"] == []  # the next repair of the same name removes what was left
    assert {path.name for path in tiny.iterdir()} == set(whole["new"])
    for left in killed:
        assert left["new"] in ([], whole["new"])
        for names in left["hidden"]:
            assert "config.json" not in names or names == whole["new"]


def test_copy_can_be_read_by_the_user_of_a_container(tiny: Path, tmp_path: Path) -> None:
    patch(tiny, f"{LINEAR}.weight_scale", 0, b"\x7f")
    repaired(tiny, tmp_path / "new", base=None)
    assert (tmp_path / "new").stat().st_mode & 0o005 == 0o005
    for path in (tmp_path / "new").iterdir():
        assert path.stat().st_mode & 0o004
    manifest = ModelFolder(tmp_path / "new").manifest()
    assert manifest is not None
    assert manifest.repo == f"repair of {tiny}"
