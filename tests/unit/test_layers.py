"""Imports point down the road only; the pure stages touch nothing outside; only cli prints."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "deckard_deploy"
STAGES = ("rendering", "patching", "weights", "rehearsal", "running", "startup", "measuring", "doctor")
LEVEL = {
    "errors": 0,
    "resources": 0,
    "system": 1,
    "catalog": 2,
    "planning": 3,
    **dict.fromkeys(STAGES, 4),
    "cli": 5,
}
PURE = ("catalog", "planning", "rendering")
EFFECTS = {
    "docker",
    "requests",
    "huggingface_hub",
    "subprocess",
    "os",
    "time",
    "socket",
    "getpass",
    "platform",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def stage(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(where: str, source: str) -> list[str]:
    found = []
    for name in imported(source):
        top, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if top == "deckard_deploy" and other in LEVEL and other != where:
            if where not in LEVEL:
                continue
            if LEVEL[other] >= LEVEL[where]:
                found.append(f"{where} imports {other}")
        if where in PURE and top in EFFECTS:
            found.append(f"{where} imports {top}")
        if where not in ("cli", "__main__") and top in ("click", "rich"):
            found.append(f"{where} imports {top}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_the_road(path: Path) -> None:
    assert violations(stage(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("catalog", "import deckard_deploy.planning.plan"),
        ("running", "from deckard_deploy.startup import follow"),
        ("startup", "from deckard_deploy.cli.main import run"),
        ("planning", "import os"),
        ("rendering", "import requests"),
        ("running", "import click"),
    ],
)
def test_a_forbidden_import_is_seen(where: str, source: str) -> None:
    assert violations(where, source) != []


def _reraises(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_only_the_boundary_catches_everything() -> None:
    broad = [
        f"{path.name}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and not _reraises(node)
        and (
            node.type is None
            or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
        )
    ]
    # Of this program, and of the child that runs the engine's own benchmark: nothing above it prints its end.
    assert sorted(each.partition(":")[0] for each in broad) == ["inside_engine.py", "main.py"]
