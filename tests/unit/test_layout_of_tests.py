"""tests/unit mirrors the package: MODULE.py has test_MODULE.py, or test_MODULE_TOPIC.py, in the same folder."""

from pathlib import Path

import pytest

UNIT = Path(__file__).parent
PACKAGE = UNIT.parents[1] / "deckard_deploy"
# Their tests are by verb: a verb is a module of cli with one of operations, and its test runs the command line.
BY_VERB = ("cli", "operations")
RULES = "tests/unit/doctor/test_judge.py goes through a failing and a passing case of every rule"
PROTOCOL = "a protocol and its values; those who implement it are tested"
UNTESTED = {
    "__main__": "two lines; every test that runs `python -m deckard_deploy` runs them",
    "doctor/rules/deployment": RULES,
    "doctor/rules/docker": RULES,
    "doctor/rules/gpu": RULES,
    "doctor/rules/memory": RULES,
    "patching/image_files": "tests/e2e/test_patch_image.py reads real images",
    "quantizing/inside_modelopt": "tests/campaigns/quantize.py runs the real ModelOpt with it",
    "running/runtime": PROTOCOL,
    "startup/observation": PROTOCOL,
    "system/unknown": "a text",
}
# Test files that are for no single module.
FOR_SEVERAL = {
    "test_embedded_scripts": "of tests",
    "test_field_cases": "of tests/support and tests/campaigns",
    "test_layers": "of the whole package",
    "test_plain_english": "of the pages and messages",
    "test_layout_of_tests": "of tests",
    "test_upgrade": "of tests/campaigns",
    "failures/test_field_lines": "recorded lines, through all of failures and diagnose",
    "weights/test_parsers": "fuzzes five modules in one way",
}


def modules() -> list[str]:
    """Return every module of the mirrored packages: `running/deploy`, `running/process/locks`."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if path.name == "__init__.py":
            if path.stat().st_size == 0 or path.parent == PACKAGE:
                continue
            name = path.parent.relative_to(PACKAGE).as_posix()
        if name.partition("/")[0] not in BY_VERB:
            found.append(name)
    return found


def files_of_tests() -> list[str]:
    """Return every test file of the mirrored packages: `running/test_deploy_kills`."""
    found = []
    for path in sorted(UNIT.rglob("test_*.py")):
        name = path.relative_to(UNIT).with_suffix("").as_posix()
        if name.partition("/")[0] not in (*BY_VERB, "scripts"):
            found.append(name)
    return found


def is_for(test_file: str, module: str) -> bool:
    """Return True if a test file has the name of the module, or of a topic of it."""
    folder, slash, name = module.rpartition("/")
    own = f"{folder}{slash}test_{name}"
    return test_file == own or test_file.startswith(f"{own}_")


@pytest.mark.parametrize("module", modules())
def test_module_has_test_file(module: str):
    tested = any(is_for(test_file, module) for test_file in files_of_tests())
    assert tested is (module not in UNTESTED), f"{module}: write a test, or give the reason in UNTESTED"


@pytest.mark.parametrize("test_file", files_of_tests())
def test_test_file_has_module(test_file: str):
    of_a_module = any(is_for(test_file, module) for module in modules())
    assert of_a_module is (test_file not in FOR_SEVERAL), f"{test_file}: name it after a module"


def test_lists_have_no_stale_entry():
    assert UNTESTED.keys() <= set(modules())
    assert FOR_SEVERAL.keys() <= set(files_of_tests())


@pytest.mark.parametrize(
    ("test_file", "module", "expected"),
    [
        ("running/test_deploy", "running/deploy", True),
        ("running/test_deploy_kills", "running/deploy", True),
        ("test_errors", "errors", True),
        ("running/test_deployments", "running/deploy", False),
        ("running/process/test_deploy", "running/deploy", False),
    ],
)
def test_name_decides(test_file: str, module: str, *, expected: bool):
    assert is_for(test_file, module) is expected
