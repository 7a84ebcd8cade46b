"""Folders of templates, patches, plugins and the catalog, in a checkout and in a wheel."""

import pytest

from deckard_deploy import resources


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
