"""Which process is meant: a pid alone may be somebody else's by now.

A pid, the clock tick at which that process started (/proc/<pid>/stat field 22, proc(5)) and the boot in which it
did name one process for ever. Signals go through a pidfd (pidfd_open(2)), which cannot be recycled either.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PF_EXITING = 0x4  # include/linux/sched.h; flags are field 9 of /proc/<pid>/stat


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of one boot."""

    pid: int
    started: int
    boot: str

    def __str__(self) -> str:
        return f"{self.pid}-{self.started}"


def identity_of(pid: int) -> ProcessIdentity:
    """The process that has `pid` now. Raises ProcessLookupError when there is none."""
    fields = _stat(pid)
    if fields is None:
        raise ProcessLookupError(f"there is no process {pid}")
    return ProcessIdentity(pid, int(fields[19]), boot_id())


def is_alive(process: ProcessIdentity) -> bool:
    """Whether that very process exists and is more than a zombie."""
    fields = _stat(process.pid)
    return fields is not None and fields[0] not in "ZX" and _is(fields, process)


def send(process: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal that very process; False when it is gone. Raises PermissionError."""
    with _pidfd(process) as descriptor:
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        return True


def wait_gone(process: ProcessIdentity, timeout_s: float) -> bool:
    """Wait until that very process has ended; False when `timeout_s` passed first."""
    with _pidfd(process) as descriptor:
        if descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))


def marked(assignment: str) -> list[ProcessIdentity]:
    """All processes whose environment holds `NAME=value`, and so all descendants of one that was started with it."""
    wanted = assignment.encode()
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            process = identity_of(int(entry.name))
            environment = (entry / "environ").read_bytes().split(b"\0")
        except (ProcessLookupError, FileNotFoundError, PermissionError):
            continue  # it ended meanwhile, or is another user's
        if wanted in environment and is_alive(process):
            found.append(process)
    return found


def wait_for_exits(timeout_s: float) -> None:
    """Wait for those of this user's processes that are being torn down.

    The kernel takes a process's memory first, and with it the environment that `marked` goes by, and only then closes
    its files: the port and the GPU's memory are free at the very end (kernel/exit.c do_exit: exit_mm, exit_files).
    """
    deadline = time.monotonic() + timeout_s
    for entry in _PROC.iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields is None or not int(fields[6]) & _PF_EXITING:  # guard: F43
            continue
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # torn down by now
            if entry.stat().st_uid == os.geteuid():
                wait_gone(identity_of(int(entry.name)), max(0.0, deadline - time.monotonic()))


@contextmanager
def _pidfd(process: ProcessIdentity) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Checked after opening: from here on the descriptor means this process, whatever happens to the number. A
        # zombie counts: its other threads may still run, and the descriptor says when the last one has ended.
        fields = _stat(process.pid)
        yield descriptor if fields and _is(fields, process) else None
    finally:
        os.close(descriptor)


def _is(fields: list[str], process: ProcessIdentity) -> bool:
    if int(fields[19]) != process.started:
        return False
    return process.boot == boot_id()  # guard: F45


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the third on; the second, the name, may hold spaces and brackets."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None  # gone, or another user's where /proc is mounted with hidepid=1
    return text.rpartition(")")[2].split()


def boot_id() -> str:
    """This boot of this machine (random(4))."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
