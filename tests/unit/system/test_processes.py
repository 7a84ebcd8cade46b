import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deckard_deploy.system.ports import require_free
from deckard_deploy.system.processes import (
    identity_of,
    is_alive,
    processes_with_variable,
    send_signal,
    wait_for_exits,
    wait_gone,
)
from tests.support.waiting import eventually

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


@pytest.fixture
def sleeper():
    with subprocess.Popen(
        SLEEP, stdout=subprocess.PIPE, env={**os.environ, "DECKARD_TEST": "a b"}
    ) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def test_send_signal_ends_process(sleeper):
    identity = identity_of(sleeper.pid)
    assert is_alive(identity)
    assert not wait_gone(identity, 0)
    assert send_signal(identity, signal.SIGTERM)
    assert wait_gone(identity, 30)
    assert not is_alive(identity)  # a zombie, not reaped yet
    assert sleeper.wait() == -signal.SIGTERM
    assert not send_signal(identity, signal.SIGKILL)


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_reused_pid_is_another_process(sleeper, change):
    stranger = replace(identity_of(sleeper.pid), **change)
    assert not is_alive(stranger)
    assert not send_signal(stranger, signal.SIGKILL)
    assert wait_gone(stranger, 0)
    assert sleeper.poll() is None


def test_ended_process_has_no_identity(sleeper):
    identity = identity_of(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    assert not is_alive(identity)
    assert not send_signal(identity, signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        identity_of(sleeper.pid)


def test_variable_is_found_on_descendants(sleeper):
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    with subprocess.Popen(
        [sys.executable, "-c", child], env={**os.environ, "DECKARD_TEST": "family"}
    ) as parent:
        family = eventually(
            lambda: found if len(found := processes_with_variable("DECKARD_TEST=family")) == 2 else []
        )
        assert parent.pid in {process.pid for process in family}
        for process in family:
            send_signal(process, signal.SIGKILL)
    assert [process.pid for process in processes_with_variable("DECKARD_TEST=a b")] == [sleeper.pid]
    assert processes_with_variable("DECKARD_TEST=a") == []


def test_identity_of_process_with_brackets_in_name(tmp_path):
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "600"]) as process:
        eventually(lambda: ") S 1 (" in Path(f"/proc/{process.pid}/comm").read_text())
        assert identity_of(process.pid).started > 1000
        assert is_alive(identity_of(process.pid))
        process.kill()


HIDDEN = """
import os, sys
sys.path[:0] = sys.argv[1:]
from deckard_deploy.system import processes as here
os.setgid(65534), os.setuid(65534)
here.processes_with_variable("DECKARD_TEST=nobody"), here.wait_for_exits(1)
print(here.is_alive(here.identity_of(os.getpid())), here.is_alive(here.ProcessIdentity(1, 1, here.boot_id())))
"""
TORN_DOWN_SLOWLY = """
import mmap, os, socket, sys
memory = mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, 1 << 30, 4096):
    memory[page] = 1
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
os.read(0, 1)
"""


def test_wait_for_exits_until_port_is_free():
    """The kernel needs so long to release a GiB of memory that the port is still bound meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-c", TORN_DOWN_SLOWLY],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "DECKARD_TEST": "heavy"},
    )  # fmt: skip
    with process:
        assert process.stdout
        port = int(process.stdout.readline())
        process.kill()
        eventually(lambda: processes_with_variable("DECKARD_TEST=heavy") == [])
        wait_for_exits(30)
        require_free("127.0.0.1", port)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount /proc, and become another user")
def test_processes_hidden_by_hidepid_are_skipped():
    """With `hidepid=1`, /proc lists the processes of other users, but none can be read."""
    mount = "mount --make-rprivate / && mount -t proc -o hidepid=1 proc /proc"
    code = f"{mount} && exec {shlex.join([sys.executable, '-c', HIDDEN, *sys.path])}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", code], capture_output=True, text=True, check=False
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "True False\n", done.stderr
