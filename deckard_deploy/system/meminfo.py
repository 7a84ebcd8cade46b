"""The memory of this machine, from /proc/meminfo (proc(5))."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the fields of /proc/meminfo in bytes. A line that is no field in kB is passed over."""
    sizes = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[0].isdecimal() and words[1] == "kB":
            sizes[name] = int(words[0]) * 1024
    return sizes


def total_and_available(meminfo: Path = MEMINFO) -> tuple[int, int]:
    """Return MemTotal and MemAvailable in bytes; zeros where there is no such file (no Linux)."""
    try:
        sizes = parse_meminfo(meminfo.read_text("ascii"))
    except FileNotFoundError:
        return 0, 0
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
