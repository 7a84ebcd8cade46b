"""The faults in between and on this host, F13 to F20 without F17, which is the docker engine's disk."""

import contextlib
import os
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.faults.download_faults import DOWNLOAD_FAULTS, case, interrupted
from tests.support.hub_server import Answer, Hub, running
from tests.support.pull_sandbox import BIG, PullSandbox, always, ended, status, times

__all__ = ["DOWNLOAD_FAULTS", "on_tmpfs"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 2000001\n"


@case(
    "F13",
    "the hub is down, and the folder lacks a file",
    "HTTP 503, or: no connection; a complete folder needs no hub",
    otherwise="code=0",
    instead="True",
)
def hub_down(sandbox: PullSandbox) -> None:
    assert sandbox.pull().code == 0
    sandbox.hub.fault = status(503)
    assert sandbox.pull().code == 0, "a complete folder needs no hub"
    (sandbox.folder / "config.json").unlink()
    found = sandbox.pull()
    assert found.names(5, "config.json: HTTP 503", "the same command again"), found


@case(
    "F14",
    "no such host, a proxy that refuses, a certificate of somebody else, a login page",
    "an HTML page came in place of the file: a login page or a proxy in between; open the hub's address in a browser",
    otherwise="bytes were expected",
)
def in_between(sandbox: PullSandbox) -> None:
    sandbox.hub.fault = always(status(200, b"<html>Welcome to", Content_Type="text/html; charset=utf-8"))
    found = sandbox.pull()
    assert found.names(5, "an HTML page", "a login page", "browser"), found
    sandbox.more = {"http_proxy": "http://user:secret@127.0.0.1:9", "no_proxy": ""}
    found = sandbox.pull()
    assert found.names(5, "http_proxy is http://127.0.0.1:9"), found
    assert "secret" not in str(found)
    sandbox.folder = sandbox.root / "new"
    sandbox.more = {"HF_ENDPOINT": "http://no-such-host.invalid"}
    assert sandbox.pull().names(5, "http://no-such-host.invalid does not answer"), found
    with signed_by_nobody(sandbox) as address:
        sandbox.more = {"HF_ENDPOINT": address}
        found = sandbox.pull()
    assert found.names(5, "certificate"), found


@contextlib.contextmanager
def signed_by_nobody(sandbox: PullSandbox) -> Iterator[str]:
    """The same hub behind TLS, with a self-signed certificate."""
    key, certificate = sandbox.root / "key.pem", sandbox.root / "certificate.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=127.0.0.1",
        "-days",
        "1",
    ]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hub = Hub(sandbox.hub.files)
    hub.server.socket = context.wrap_socket(hub.server.socket, server_side=True)
    with running(hub):
        yield hub.url.replace("http:", "https:")


@case(
    "F15",
    "a Git LFS pointer lies in the folder, or comes from the server",
    "a Git LFS pointer, not the file it points to; now in quarantine, and fetched again",
    otherwise="bytes, and 2000001 were expected",
)
def pointer(sandbox: PullSandbox) -> None:
    sandbox.folder.mkdir(parents=True)
    (sandbox.folder / BIG).write_bytes(POINTER)
    found = sandbox.pull()
    assert sandbox.is_right(), f"the files are not right: {found}"
    assert "a Git LFS pointer, not the file" in str(found.said), found
    (sandbox.folder / BIG).unlink()
    sandbox.hub.fault = always(status(200, POINTER))
    found = sandbox.pull()
    assert found.names(5, "a Git LFS pointer, not the file"), found


@case(
    "F16",
    "the disk is too small",
    "needs … bytes, and … are free; free … bytes there: before the first byte",
    otherwise="bytes were fetched",
)
def small_disk(sandbox: PullSandbox) -> None:
    sandbox.wrapper = on_tmpfs(sandbox.folder, "size=1m")
    found = sandbox.pull()
    assert sandbox.hub.sent == 0, "bytes were fetched"
    assert found.names(3, "needs 3,068,586 bytes, and ", " are free", "bytes there"), found
    assert BIG not in found.files


def on_tmpfs(folder: Path, options: str) -> list[str]:
    """Return a command prefix that mounts a file system of its own at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
    return ["unshare", "--mount", *rights, "sh", "-c", mount, str(folder)]


@case(
    "F18a",
    "no inodes left, a read-only disk, an fsync that fails",
    "cannot write …: No space left on device, or Read-only file system, or Input/output error; df -i, findmnt, dmesg",
    otherwise="got its name",
)
def bad_disk(sandbox: PullSandbox) -> None:
    sandbox.wrapper = on_tmpfs(sandbox.folder, "size=64m,nr_inodes=8")
    found = sandbox.pull()
    assert found.names(3, "No space left on device", "df -i"), found
    sandbox.wrapper = on_tmpfs(sandbox.folder, "ro")
    found = sandbox.pull()
    assert found.names(3, "Read-only file system", "findmnt -T"), found
    sandbox.wrapper = []
    found = sandbox.pull("fsync-fails")
    assert BIG not in found.files, f"{BIG} got its name"
    assert found.names(3, "Input/output error", "dmesg"), found


@case(
    "F18b",
    "the same command again after an fsync that failed",
    "nothing; fetched again, because the kernel may show bytes that the disk does not have",
    otherwise="it went on",
)
def after_a_failed_fsync(sandbox: PullSandbox) -> None:
    assert sandbox.pull("fsync-fails").code == 3
    before = sandbox.hub.served(BIG)
    assert sandbox.pull().code == 0
    assert sandbox.is_right(), "the files are not right"
    assert sandbox.hub.served(BIG) - before == len(sandbox.hub.files[BIG]), "it went on where it was"


@case(
    "F18c",
    "the user's quota is used up, or a write fails, where the disk has room",
    "needs … bytes more, and the quota is used up; quota -s, or: cannot write: Input/output error; dmesg",
    otherwise="Disk quota exceeded",
)
def no_more_for_this_user(sandbox: PullSandbox) -> None:
    found = sandbox.pull("eio-on-write")
    assert found.names(3, "cannot write: Input/output error", "dmesg", "goes on where it stopped"), found
    found = sandbox.pull("quota")
    assert found.names(3, "the quota is used up", "quota -s", "goes on where it stopped"), found
    assert BIG not in found.files
    before = sandbox.hub.served(BIG)
    assert sandbox.pull().code == 0
    assert sandbox.is_right(), "the files are not right"
    assert sandbox.hub.served(BIG) - before < len(sandbox.hub.files[BIG]), "it began anew"


def two(sandbox: PullSandbox, *fakes: str) -> None:
    """Start a second and a third pull while the first waits for its bytes."""
    asked, release = threading.Event(), threading.Event()

    def wait(_answer: Answer, _name: str, _start: int, _end: int) -> bool:
        asked.set()
        release.wait(60)
        return False

    sandbox.hub.fault = times(1, wait)
    first = sandbox.begin(*fakes)
    try:
        assert asked.wait(60)
        for _ in range(2):
            found = sandbox.pull(*fakes)
            assert found.names(8, "another deckard-deploy is pulling", "wait until it is done"), found
    finally:
        release.set()
        last = ended(first)
    assert last.code == 0, last
    assert sandbox.is_right(), "the files are not right"
    assert sandbox.hub.served(BIG) == len(sandbox.hub.files[BIG])


@case(
    "F19",
    "two pulls at once",
    "another deckard-deploy is pulling into …; wait until it is done: exit 8",
    otherwise="code=0",
)
def second_pull(sandbox: PullSandbox) -> None:
    two(sandbox)


@case(
    "F20",
    "flock says yes to everybody, as on some network file systems",
    "another deckard-deploy is pulling into …; if it ran on a host that is gone: rm …/.deckard/owner",
    otherwise="code=0",
)
def lying_flock(sandbox: PullSandbox) -> None:
    two(sandbox, "flock-lies")
    (sandbox.folder / BIG).unlink()
    interrupted(sandbox, signal.SIGKILL, sandbox.begin)
    assert (sandbox.folder / ".deckard" / "owner").exists()
    assert sandbox.pull().code == 0, "a dead owner's marker is in the way"
