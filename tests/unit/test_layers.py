"""Imports point down only, without circles; pure stages touch nothing outside; only cli prints."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "deckard_deploy"
STAGES = (
    "rendering",
    "patching",
    "weights",
    "rehearsal",
    "quantizing",
    "running",
    "startup",
    "measuring",
    "doctor",
)
LEVEL = {
    "errors": 0,
    "resources": 0,
    "system": 1,
    "failures": 2,
    "catalog": 2,
    "planning": 3,
    **dict.fromkeys(STAGES, 4),
    "operations": 5,
    "api": 6,
    "cli": 6,
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
# Modules of system that pure stages may use: none of them reads or changes the machine.
PURE_SYSTEM = {"suggestion", "text", "unknown", "versions"}
# Modules of cli that show values of the stages, and the list of a catalog that must not load pydantic.
SHOWN_BY = ("screens",)
FILES = sorted(PACKAGE.rglob("*.py"))


def stage(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported(source: str, *, types: bool = True) -> set[str]:
    """Every imported name, in functions too. types: also what is imported for type checkers alone."""
    tree = ast.parse(source)
    skipped: set[ast.AST] = set()
    if not types:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                skipped.update(ast.walk(node))
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(where: str, source: str) -> Iterator[str]:
    for name in imported(source):
        top, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if top == "deckard_deploy" and other in LEVEL and other != where and where in LEVEL:
            if LEVEL[other] >= LEVEL[where]:
                yield f"{where} imports {other}"
            if where in PURE and other == "system" and rest.split(".")[1] not in PURE_SYSTEM:
                yield f"{where} imports {rest}"
        if where in PURE and top in EFFECTS:
            yield f"{where} imports {top}"
        if where not in ("cli", "__main__") and top in ("click", "rich"):
            yield f"{where} imports {top}"


def stages_imported_by_cli(source: str) -> set[str]:
    """The stages that a file of cli imports, not counting types."""
    found = set()
    for name in imported(source, types=False):
        top, _, rest = name.partition(".")
        if top == "deckard_deploy" and rest.split(".")[0] in (*STAGES, "planning", "catalog"):
            found.add(rest)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_the_road(path: Path) -> None:
    assert list(violations(stage(path), path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("catalog", "import deckard_deploy.planning.plan"),
        ("running", "from deckard_deploy.startup import follow"),
        ("startup", "from deckard_deploy.cli.main import run"),
        ("planning", "import os"),
        ("rendering", "import requests"),
        ("running", "import click"),
        ("planning", "from deckard_deploy.system.files import write_atomically"),
        ("operations", "from deckard_deploy.cli.output import say"),
        ("operations", "import rich"),
        ("api", "from deckard_deploy.cli.main import run"),
        ("cli", "from deckard_deploy.api import plan"),
    ],
)
def test_a_forbidden_import_is_seen(where: str, source: str) -> None:
    assert list(violations(where, source)) != []


CLI = [path for path in FILES if stage(path) == "cli" and path.parts[-2] not in SHOWN_BY]


@pytest.mark.parametrize("path", CLI, ids=lambda path: path.name)
def test_cli_imports_no_stage_but_for_types(path: Path) -> None:
    # The list of a catalog is read without pydantic, which operations would load.
    allowed = {"catalog.listing"} if path.name in ("catalogs.py", "names.py") else set()
    assert stages_imported_by_cli(path.read_text(encoding="utf-8")) <= allowed


def test_a_stage_imported_by_cli_is_seen() -> None:
    assert stages_imported_by_cli("def f():\n    from deckard_deploy.running import deploy") == {
        "running.deploy"
    }


@pytest.mark.parametrize(
    "path", [path for path in FILES if stage(path) == "operations"], ids=lambda path: path.name
)
def test_operations_print_nothing(path: Path) -> None:
    calls = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]
    printing = [
        call for call in calls if ast.unparse(call.func) in ("print", "sys.stdout.write", "sys.stderr.write")
    ]
    assert printing == []


def circles(imports: dict[str, set[str]]) -> list[str]:
    """The modules that import themselves through others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(imports[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += imports[module]
        return seen

    return [module for module in imports if module in reached(module)]


def test_no_import_circle() -> None:
    """Imports inside functions count; imports for type checkers alone do not, since they never run."""
    modules = {module_of(path): path for path in FILES}
    imports = {}
    for module, path in modules.items():
        names = imported(path.read_text(encoding="utf-8"), types=False)
        imports[module] = {
            found for name in names for found in (name, name.rpartition(".")[0]) if found in modules
        } - {module, module.rpartition(".")[0], "deckard_deploy"}
    assert circles(imports) == []


def test_an_import_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]


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
