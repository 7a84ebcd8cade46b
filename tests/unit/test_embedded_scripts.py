"""Names in strings exist: imports of scripts that a test runs in another process, and targets of monkeypatch.

A type checker reads no strings, and a script whose standard error is dropped may fail without failing its test.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "scripts", "tests", "validation")
IMPORT = re.compile(r"from +((?:deckard_deploy|tests)[\w.]*) +import +(\w+(?: *, *\w+)*)")
DOTTED = re.compile(r"deckard_deploy(?:\.\w+)+")


def constants(source: str) -> Iterator[str]:
    """Yield every string, f-strings with 0 for their values."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "0" for part in node.values)


def named_in(source: str) -> Iterator[str]:
    """Yield the full name of everything that strings import, and of everything that a string consists of."""
    for text in constants(source):
        if DOTTED.fullmatch(text):
            yield text
        for found in IMPORT.finditer(text):
            for name in found[2].split(","):
                yield f"{found[1]}.{name.strip()}"


def exists(name: str) -> bool:
    """Return True for a module, a name in one, or an attribute of that."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_in_strings_exist(folder: str):
    missing = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in named_in(path.read_text(encoding="utf-8")):
            if path != Path(__file__) and not exists(name):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []


def test_stale_name_is_noticed():
    source = (
        'SCRIPT = """\nfrom deckard_deploy.errors import DeployError, Gone\n"""\nX = "deckard_deploy.gone.y"'
    )
    assert [name for name in named_in(source) if not exists(name)] == [
        "deckard_deploy.errors.Gone",
        "deckard_deploy.gone.y",
    ]
