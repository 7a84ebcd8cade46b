from pathlib import Path

from deckard_deploy.system.meminfo import parse_meminfo, total_and_available

TEXT = "MemTotal:       16384 kB\nMemAvailable:    8192 kB\nHugePages_Total:       0\nActive(anon):  1 kB\n"


def test_sizes_are_in_bytes() -> None:
    assert parse_meminfo(TEXT) == {"MemTotal": 16384 << 10, "MemAvailable": 8192 << 10}


def test_absurd_numbers_are_passed_over() -> None:
    assert parse_meminfo(f"MemTotal: {'9' * 40} kB\nMemFree: -1 kB\n") == {}


def test_total_and_available_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(TEXT)
    assert total_and_available(tmp_path / "meminfo") == (16384 << 10, 8192 << 10)


def test_no_meminfo_gives_zeros(tmp_path: Path) -> None:
    assert total_and_available(tmp_path / "none") == (0, 0)
