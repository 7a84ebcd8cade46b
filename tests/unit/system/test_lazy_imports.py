"""Packages whose modules load at first use."""

import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy.system.lazy_imports import submodule_loader


def test_submodule_loads_at_first_use() -> None:
    script = (
        "import sys; from deckard_deploy import operations\n"
        "name = 'deckard_deploy.operations.logs'\n"
        "assert name not in sys.modules; operations.logs; assert name in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_unknown_submodule_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'deckard_deploy' has no attribute 'nothing'"):
        submodule_loader("deckard_deploy")("nothing")


def test_missing_dependency_of_a_submodule_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lazy_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "broken.py").write_text("import no_such_dependency\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        submodule_loader("lazy_package")("broken")
