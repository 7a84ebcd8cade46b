"""Identity of processes.

A pid alone does not identify a process, because the kernel gives it to another one later.
The pid, the clock tick at which the process started (/proc/<pid>/stat field 22, proc(5)) and the boot
identify one process permanently. Signals go through a pidfd (pidfd_open(2)), which the kernel does not reuse
either.
"""

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
    """Return the identity of the process that has `pid` now. Raises ProcessLookupError if there is none."""
    fields = _stat(pid)
    if fields is None:
        raise ProcessLookupError(f"there is no process {pid}")
    return ProcessIdentity(pid, int(fields[19]), boot_id())


def is_alive(process: ProcessIdentity) -> bool:
    """Return True if exactly that process exists and is not a zombie."""
    fields = _stat(process.pid)
    return fields is not None and fields[0] not in "ZX" and _belongs_to(fields, process)


def bytes_written(pid: int) -> int | None:
    """Return the number of bytes that a process has written (`wchar` of proc(5)); None if it is not readable."""
    try:
        text = (_PROC / str(pid) / "io").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        if name == "wchar":
            return int(value)
    return None


def send_signal(process: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal exactly that process. Return False if it is gone. Raises PermissionError."""
    with _pidfd(process) as descriptor:
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        return True


def wait_gone(process: ProcessIdentity, timeout_s: float) -> bool:
    """Wait until exactly that process has ended. Return False if `timeout_s` passes first."""
    with _pidfd(process) as descriptor:
        if descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))


def processes_with_variable(assignment: str) -> list[ProcessIdentity]:
    """Return all processes with `NAME=value` in their environment, except this one.

    Children inherit the environment, so all descendants of a process that was started with the variable are
    found.
    """
    wanted = assignment.encode()
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            process = identity_of(int(entry.name))
            environment = (entry / "environ").read_bytes().split(b"\0")
        except (ProcessLookupError, FileNotFoundError, PermissionError):
            continue  # the process has ended, or is another user's
        if wanted in environment and is_alive(process):
            found.append(process)
    return found


def wait_for_exits(timeout_s: float) -> None:
    """Wait until the kernel has torn down the processes of this user that are exiting.

    The kernel releases a process's memory first, and with it the environment that `processes_with_variable`
    reads. Only then it closes the files, which frees the port and the GPU's memory (kernel/exit.c do_exit:
    exit_mm, exit_files).
    """
    deadline = time.monotonic() + timeout_s
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        fields = _stat(int(entry.name))
        if fields is None or not int(fields[6]) & _PF_EXITING:  # guard: F43
            continue
        try:
            owned = entry.stat().st_uid == os.geteuid()
            process = identity_of(int(entry.name))
        except (ProcessLookupError, FileNotFoundError):
            continue  # already torn down
        if owned:
            wait_gone(process, max(0.0, deadline - time.monotonic()))


@contextmanager
def _pidfd(process: ProcessIdentity) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # The check comes after the open: from then on the descriptor stands for one process, even if the
        # kernel reuses the pid. A zombie counts too: its other threads may still run, and the descriptor
        # becomes readable when the last one has ended.
        fields = _stat(process.pid)
        yield descriptor if fields and _belongs_to(fields, process) else None
    finally:
        os.close(descriptor)


def _belongs_to(fields: list[str], process: ProcessIdentity) -> bool:
    if int(fields[19]) != process.started:
        return False
    return process.boot == boot_id()  # guard: F45


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat from the third on, None if they cannot be read.

    The second field, the name, may hold spaces and brackets.
    """
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None  # gone, or another user's and /proc is mounted with hidepid=1
    return text.rpartition(")")[2].split()


def boot_id() -> str:
    """Return the id of this boot of this machine (random(4))."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
