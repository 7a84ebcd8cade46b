"""The comparison with OSV's dump, on a dump that was written by hand in OSV's schema."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def advisory(name: str, *, fixed: str | None, package: str = "vllm", **more: Any) -> dict[str, Any]:
    events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
    affected = {
        "package": {"ecosystem": "PyPI", "name": package},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }
    return {"id": name, "summary": f"about {name}", "affected": [affected], **more}


def compared(folder: Path, *advisories: dict[str, Any]) -> tuple[int, list[str]]:
    dump = folder / "all.zip"
    with zipfile.ZipFile(dump, "w") as archive:
        for one in advisories:
            archive.writestr(f"{one['id']}.json", json.dumps(one))
    argv = [sys.executable, str(ROOT / "scripts/compare_advisories.py"), str(dump)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_only_unnamed_open_advisories_on_vllm_are_listed(tmp_path: Path):
    code, lines = compared(
        tmp_path,
        advisory("GHSA-new1-new1-new1", fixed="0.40.0"),
        advisory("PYSEC-2026-9", fixed=None),
        advisory("PYSEC-2026-1", fixed="0.22.0", aliases=["CVE-2026-48746"]),
        advisory("GHSA-94f4-hr76-p5j6", fixed="0.22.0"),
        advisory("GHSA-old1-old1-old1", fixed="0.19.1"),
        advisory("GHSA-gone-gone-gone", fixed="0.40.0", withdrawn="2026-01-01T00:00:00Z"),
        advisory("GHSA-else-else-else", fixed="0.40.0", package="torch", details='see "vllm"'),
    )
    assert code == 1
    assert lines == [
        "GHSA-new1-new1-new1: about GHSA-new1-new1-new1 (fixed in 0.40.0)",
        "PYSEC-2026-9: about PYSEC-2026-9 (fixed in no release)",
        "2 advisories on vLLM are not named in advisories.yaml",
    ]


def test_named_advisories_leave_nothing_to_do(tmp_path: Path):
    assert compared(tmp_path, advisory("CVE-2026-93989", fixed="0.30.0"))[0] == 0
