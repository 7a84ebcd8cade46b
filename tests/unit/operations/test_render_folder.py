"""`render all` and `render --check`: a folder is written once, kept from hand edits, and compared."""

from hashlib import sha256
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.render_folder import RECORD, drift, read_record, write_folder
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.planning.plan import LaunchPlan

# Its plugin is built without a network.
H200 = Choice(profile="h200", settings=("engine=vllm-0.32.0",))
# Without a gateway.
HOST_NETWORK = ("container.network=host", 'allow_unsafe=["container.network"]')


def write(folder: Path, choice: Choice = H200) -> LaunchPlan:
    return write_folder(choice, folder, SILENT)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folder_has_everything(tmp_path: Path) -> None:
    plan = write(tmp_path / "a" / "b")
    assert len(plan.built) == 2
    assert set(contents(tmp_path / "a" / "b")) == {
        ".env", ".gitignore", "README.md", "compose.yaml", "deckard.json", "keys.sh", "nginx.conf", "plan.json",
        "prepare.sh", *(mount.source for mount in plan.built),
    }  # fmt: skip


def test_two_places_have_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "elsewhere" / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "elsewhere" / "b")


def test_no_file_has_key_material(tmp_path: Path) -> None:
    write(tmp_path / "a")
    everything = b"".join(contents(tmp_path / "a").values())
    assert b'access_version { default "' not in everything.replace(b'default "%s"', b"")
    assert b'"dk-deckard" "' not in everything


def test_fresh_folder_has_not_drifted(tmp_path: Path) -> None:
    write(tmp_path / "a")
    assert list(drift(tmp_path / "a", SILENT)) == []
    write(tmp_path / "a")  # again, over itself
    assert list(drift(tmp_path / "a", SILENT)) == []


def test_drift_names_each_file(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    plan = write(folder)
    assert plan.plugin is not None
    compose = folder / "compose.yaml"
    compose.write_text(compose.read_text().replace("127.0.0.1", "0.0.0.0"))
    (folder / "keys.sh").unlink()
    (folder / plan.plugin.source).write_bytes(b"")
    (folder / ".env").write_text("DECKARD_MODELS=/data\n")  # this machine's
    assert sorted(drift(folder, SILENT)) == sorted(
        ["compose.yaml: changed by hand", "keys.sh: missing", f"{plan.plugin.source}: changed by hand"]
    )


def test_drift_finds_changed_deployment(tmp_path: Path) -> None:
    config = tmp_path / "deckard.yaml"
    config.write_text("profile: h200\nengine: vllm-0.32.0\n")
    write(tmp_path / "out" / "a", Choice(config=config))
    assert list(drift(tmp_path / "out" / "a", SILENT)) == []
    config.write_text("profile: h200\nengine: vllm-0.32.0\nserve: {max-num-seqs: 3}\n")
    names = [line.partition(":")[0] for line in drift(tmp_path / "out" / "a", SILENT)]
    assert names == ["compose.yaml", "plan.json"]


def test_version_in_comment_is_no_drift(tmp_path: Path) -> None:
    write(tmp_path / "a")
    record = read_record(tmp_path / "a")
    compose = tmp_path / "a" / "compose.yaml"
    compose.write_text("# by an earlier version\n" + compose.read_text())
    files = {**record.files, "compose.yaml": sha256(compose.read_bytes()).hexdigest()}
    (tmp_path / "a" / RECORD).write_text(record.model_copy(update={"files": files}).model_dump_json())
    assert list(drift(tmp_path / "a", SILENT)) == []


def test_rendering_keeps_env_and_removes_old_files(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    (tmp_path / "a" / ".env").write_text("DECKARD_MODELS=/data\n")
    write(tmp_path / "a", Choice(profile="h200", settings=("engine=vllm-0.32.0", *HOST_NETWORK)))
    assert first.plugin is not None
    assert not (tmp_path / "a" / "nginx.conf").exists()
    assert not (tmp_path / "a" / "keys.sh").exists()
    assert (tmp_path / "a" / first.plugin.source).exists()
    assert (tmp_path / "a" / ".env").read_text() == "DECKARD_MODELS=/data\n"


def test_hand_edit_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / "compose.yaml").write_text("mine")
    with pytest.raises(IntegrityError, match=r"compose\.yaml: changed by hand"):
        write(tmp_path / "a")
    assert (tmp_path / "a" / "compose.yaml").read_text() == "mine"


def test_foreign_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(BadInputError, match=r"README\.md exists, and was not written"):
        write(tmp_path)
    assert contents(tmp_path) == {"README.md": b"mine"}


def test_record_names_no_file_outside(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write(folder)
    (tmp_path / "precious").write_text("mine")
    record = read_record(folder)
    hostile = record.model_copy(update={"files": {**record.files, "../precious": 64 * "0"}})
    (folder / RECORD).write_text(hostile.model_dump_json())
    with pytest.raises(BadInputError, match=r"deckard\.json is damaged"):
        write(folder)
    assert (tmp_path / "precious").read_text() == "mine"


def test_folder_that_was_not_rendered(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BadInputError, match="was not written by `render all`"):
            list(drift(folder, SILENT))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(profile="cpu"), "runs without Docker"),
        (Choice(profile="spark", compat="seed"), "a launch line of your own"),
    ],
)
def test_choice_without_folder(tmp_path: Path, choice: Choice, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        write(tmp_path / "a", choice)
    assert not (tmp_path / "a").exists()
