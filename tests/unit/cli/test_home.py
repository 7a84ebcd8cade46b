"""Wherever the state directory is said to be: it is used, or refused in one line."""

import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from deckard_deploy.cli.main import run

pytestmark = pytest.mark.slow  # real processes or servers, and their waits

CHECKOUT = Path(__file__).parents[3]
LONG = "/" + "/".join(["d" * 200] * 20) + "/" + "d" * 80


def keys_added(folder: Path, **environment: str | None) -> tuple[int, str]:
    """`keys add` makes the state directory, and says its key on stdout."""
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "HOME": str(folder / "home")}
    given = {name: value for name, value in {**own, **environment}.items() if value is not None}
    command = [sys.executable, "-m", "deckard_deploy", "keys", "add", "alice"]
    done = subprocess.run(
        command, env=given, cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ["with space", "new\nline", "ümläut", "sur\udcffrogate", "$HOME", "-x"])
def test_folder_of_any_name_is_used(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    code, said = keys_added(tmp_path, XDG_DATA_HOME=str(folder), LC_ALL="C")
    assert code == 0, said
    assert (folder / "deckard-deploy/keys").is_dir()


def test_relative_home_is_below_working_folder(tmp_path: Path) -> None:
    assert keys_added(tmp_path, DECKARD_HOME="state")[0] == 0
    assert (tmp_path / "state/keys").is_dir()


def test_missing_home_is_created(tmp_path: Path) -> None:
    assert keys_added(tmp_path)[0] == 0
    assert (tmp_path / "home/.local/share/deckard-deploy/keys").is_dir()


@pytest.mark.parametrize(
    "home", ["/proc/nowhere", "/dev/null", LONG], ids=["read-only", "no folder", "too long"]
)
def test_unwritable_home_is_one_line(tmp_path: Path, home: str) -> None:
    code, said = keys_added(tmp_path, HOME=home)
    assert code in (3, 4), said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 2, said  # what, and what to type
    assert said.count(home) == 2, said


def become_user_without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that was given a user's number alone."""

    def nobody(number: int) -> NoReturn:
        raise KeyError(number)

    for name in ("HOME", "XDG_DATA_HOME", "DECKARD_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


def test_render_needs_no_home(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    become_user_without_home(monkeypatch)
    assert run(["render", "compose", "--profile", "spark"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("words", ["status", "up --profile cpu", "doctor --state-dir .", "profiles here"])
def test_user_without_home_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    become_user_without_home(monkeypatch)
    assert run(words.split()) == 3
    assert capsys.readouterr().err.startswith(
        f"error: HOME is not set, and user {os.getuid()} has no home\n  try: "
    )


def test_circular_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    code, said = keys_added(tmp_path, DECKARD_HOME="loop")
    assert code in (3, 4), said
    assert "loop" in said
