#!/usr/bin/env python3
"""Print the advisories of an OSV dump on vLLM that doctor/rules/advisories.yaml does not name.

    curl -LO https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip
    python scripts/compare_advisories.py all.zip

The format is OSV's (https://ossf.github.io/osv-schema/), one JSON file an advisory. An advisory counts as named if
its id or one of its aliases stands in the file, also in an `about`. Ranges that end before the oldest release of the
catalog are left out. The exit code is 1 if one is not named.
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deckard_deploy.catalog import library, listing
from deckard_deploy.doctor.rules import engine as rules

NAMED = Path(rules.__file__).with_name("advisories.yaml")


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version to compare by; a suffix such as rc1 is left out."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", version.split("rc", maxsplit=1)[0])[:3])


def oldest_engine() -> tuple[int, ...]:
    """Return the oldest vLLM release of the catalog."""
    return min(release(library.engine(name).vllm_version) for name in listing.names("engines"))


def fixes(advisory: dict[str, Any]) -> list[str]:
    """Return the releases that end a range of vLLM's; empty if no range ends."""
    return [
        event["fixed"]
        for affected in advisory.get("affected", [])
        if affected.get("package", {}).get("name") == "vllm"
        for found in affected.get("ranges", [])
        if found.get("type") != "GIT"
        for event in found.get("events", [])
        if "fixed" in event
    ]


def on_vllm(dump: Path) -> Iterator[dict[str, Any]]:
    """Yield the advisories of the dump whose package is vllm, and which were not withdrawn."""
    with zipfile.ZipFile(dump) as archive:
        for name in sorted(archive.namelist()):
            content = archive.read(name)
            if b'"vllm"' not in content:
                continue
            advisory = json.loads(content)
            packages = [affected.get("package", {}).get("name") for affected in advisory.get("affected", [])]
            if "vllm" in packages and not advisory.get("withdrawn"):
                yield advisory


def missing(dump: Path) -> Iterator[str]:
    """Yield a line for each advisory that may concern an engine of the catalog and is not named."""
    named = NAMED.read_text(encoding="utf-8")
    oldest = oldest_engine()
    for advisory in on_vllm(dump):
        names = [advisory["id"], *advisory.get("aliases", [])]
        ends = fixes(advisory)
        fixed_before = bool(ends) and max(release(end) for end in ends) <= oldest
        if fixed_before or any(name in named for name in names):
            continue
        yield f"{', '.join(names)}: {advisory.get('summary', '')} (fixed in {', '.join(ends) or 'no release'})"


def main() -> int:
    """Run the command line; returns the exit code."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    lines = list(missing(Path(sys.argv[1])))
    print("\n".join([*lines, f"{len(lines)} advisories on vLLM are not named in {NAMED.name}"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
