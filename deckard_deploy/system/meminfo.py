"""The memory of this machine, from /proc/meminfo (proc(5))."""

import re
from pathlib import Path

# Up to 15 digits: a file of somebody else's facts may hold any number.
_FIELD = re.compile(r"(?P<name>\w+):\s+(?P<kib>\d{1,15}) kB", re.ASCII)
MEMINFO = Path("/proc/meminfo")


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the fields of /proc/meminfo in bytes. A line that is no field in kB is passed over."""
    sizes = {}
    for line in text.splitlines():
        found = _FIELD.fullmatch(line)
        if found:
            sizes[found["name"]] = int(found["kib"]) * 1024
    return sizes


def total_and_available(meminfo: Path = MEMINFO) -> tuple[int, int]:
    """Return MemTotal and MemAvailable in bytes; zeros where there is no such file (no Linux)."""
    try:
        sizes = parse_meminfo(meminfo.read_text("ascii"))
    except FileNotFoundError:
        return 0, 0
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
