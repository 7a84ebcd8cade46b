"""Failures from the field against what the product says of them: python -m tests.campaigns.field_cases FOLDER...

FOLDER is a case, or a folder of cases; tests/support/field_cases.py has their format. Without one, the folders in
DECKARD_FIELD_CASES (separated by colons) are run, else the cases of this repository. CI runs those.

Prints a line for each case, the text for a user below a case that fails, and a total. Exits with 1 if a case fails.
"""

import argparse
import os
import sys
from pathlib import Path

from tests.support.field_cases import ROOT, CaseResult, FieldCase, check_case, load_case

VARIABLE = "DECKARD_FIELD_CASES"
OWN = ROOT / "tests" / "unit" / "field_cases"
MAX_TEXT = 4000


def cases_in(folders: list[Path]) -> list[FieldCase]:
    """Return the cases of these folders, by name. Raises FileNotFoundError for a folder without a case."""
    found = []
    for folder in folders:
        if (folder / "case.json").exists():
            found.append(load_case(folder))
            continue
        inside = sorted(path.parent for path in folder.glob("*/case.json"))
        if not inside:
            raise FileNotFoundError(f"{folder} has no case")
        found += [load_case(each) for each in inside]
    return found


def show(result: CaseResult) -> None:
    """Print the line of a case, and the product's text if it fails."""
    if result.skipped:
        print(f"---- {result.case.name}: not run here, see its README")
        return
    word = "pass" if result.passed else "FAIL"
    print(f"{word} {result.case.name}: {'; '.join(result.differences)}".rstrip(": "))
    if not result.passed:
        text = result.text.strip()[:MAX_TEXT].replace("\n", "\n           ")
        print(f"     said: {text}")
    sys.stdout.flush()


def run(folders: list[Path]) -> int:
    """Run all cases of these folders. Return the number of those that fail."""
    failed = passed = 0
    for case in cases_in(folders):
        result = check_case(case)
        show(result)
        if not result.skipped:
            passed += result.passed
            failed += not result.passed
    print(f"{passed} pass, {failed} fail")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="*")
    folders = parser.parse_args().folders
    if not folders:
        folders = [Path(name) for name in os.environ.get(VARIABLE, "").split(":") if name] or [OWN]
    sys.exit(bool(run(folders)))


if __name__ == "__main__":
    main()
