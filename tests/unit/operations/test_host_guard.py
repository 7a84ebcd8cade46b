"""Memory that runs out and a wedged GPU, with figures and an nvidia-smi of the test."""

from pathlib import Path

import pytest

from deckard_deploy.operations.host_guard import FLOOR, GIB, WARN, MemoryGuard, wedged_gpu
from deckard_deploy.operations.reporting import SILENT
from tests.support.recording_reporter import RecordingReporter


def test_shortage_is_warned_of_and_then_certain(report: RecordingReporter) -> None:
    figures = iter([8 * GIB, WARN - 1, WARN - 1, FLOOR - 1, FLOOR, FLOOR - 1, FLOOR - 1, 8 * GIB, WARN - 1])
    guard = MemoryGuard(report, lambda: next(figures))
    assert [bool(guard.shortage()) for _ in range(9)] == [False] * 6 + [True, False, False]
    assert report.lines == ["memory   2.0 GiB available: below 512 MiB the engine is stopped"] * 2


@pytest.mark.parametrize(
    ("line", "wedged"),
    [
        ("NVIDIA GB10, 12.30, 96", True),
        ("NVIDIA GB10, 45.10, 96", False),  # it decodes
        ("NVIDIA GB10, 12.30, 0", False),  # it idles
        ("NVIDIA GB10, [N/A], 96", False),
        ("NVIDIA H200, 12.30, 96", False),  # nothing is known of it
    ],
)
def test_busy_gpu_without_power_is_wedged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, *, wedged: bool
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{line}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = wedged_gpu(SILENT)
    assert found.startswith("; NVIDIA GB10 reports 96 % at 12.30 W") is wedged
    assert bool(found) is wedged


def test_machine_without_nvidia_smi_has_no_wedged_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wedged_gpu(SILENT) == ""
