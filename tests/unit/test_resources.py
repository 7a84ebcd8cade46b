"""Folders of templates, patches, plugins and the catalog, in a checkout and in a wheel."""

import subprocess

import pytest

from deckard_deploy import __version__, resources


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        (resources.templates_dir, "compose.yaml.j2"),
        (resources.patches_dir, "*/manifest.yaml"),
        (resources.plugins_dir, "*/*.py"),
        (resources.catalog_dir, "profiles/*.yaml"),
    ],
)
def test_folder_has_its_files(folder, pattern: str):
    assert list(folder().glob(pattern))


def test_folder_in_the_package_comes_first(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A wheel has the folders inside the package."""
    package = tmp_path / "deckard_deploy"
    (package / "patches").mkdir(parents=True)
    (tmp_path / "templates").mkdir()
    monkeypatch.setattr(resources, "PACKAGE", package)
    assert resources.patches_dir() == package / "patches"
    assert resources.templates_dir() == tmp_path / "templates"


def test_version_names_the_commit(tmp_path, monkeypatch: pytest.MonkeyPatch):
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(resources, "PACKAGE", tmp_path / "deckard_deploy")
    assert resources.tool_version() == __version__
    git("init", "--quiet")
    for pack in (False, True):
        git("commit", "--quiet", "--allow-empty", "--message", "a")
        if pack:
            git("pack-refs", "--all")
        assert resources.tool_version() == f"{__version__} ({git('rev-parse', 'HEAD')[:12]})"
