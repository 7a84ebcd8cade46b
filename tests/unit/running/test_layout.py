import pytest

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.running.layout import StateDir, default_root


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "-x", "X", "a" * 64, "a\n", "ä", "a b"])
def test_invalid_name_is_refused(tmp_path, name):
    with pytest.raises(BadInputError, match="is not a deployment name"):
        StateDir(tmp_path).deployment(name)


@pytest.mark.parametrize("name", ["spark", "a", "0", "a.b-c_d", "a" * 63])
def test_name_is_a_folder(tmp_path, name):
    assert StateDir(tmp_path).deployment(name).folder == tmp_path / "deployments" / name


def test_reading_creates_nothing(tmp_path):
    state = StateDir(tmp_path / "state")
    assert state.deployments() == []
    assert not state.deployment("spark").folder.exists()
    assert not state.root.exists()


def test_create_makes_private_folders(tmp_path):
    state = StateDir(tmp_path / "state")
    deployment = state.create("spark")
    made = [state.root, *(path for path in state.root.rglob("*") if path.is_dir())]
    assert {oct(path.stat().st_mode & 0o777) for path in made} == {"0o700"}
    assert deployment.releases in made
    assert state.deployments() == []  # its first `up` was refused before there was a release
    (deployment.releases / "0123456789ab").mkdir()
    assert state.deployments() == ["spark"]


@pytest.mark.parametrize(
    "link", ["state", "state/deployments", "state/deployments/spark", "state/deployments/spark/releases"]
)
def test_create_refuses_links(tmp_path, link):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="is not a folder of ours"):
        StateDir(tmp_path / "state").create("spark")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_create_clears_leftovers_of_killed_purge(tmp_path):
    left = tmp_path / "deployments" / ".tmp-gone-1"
    (left / "spark").mkdir(parents=True)
    StateDir(tmp_path).create("other")
    assert not left.exists()


def test_default_root_is_in_user_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_root() == tmp_path / "deckard-deploy"
