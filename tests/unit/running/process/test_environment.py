"""The private environment, built by a real uv from a lock of tiny wheels, without index and network."""

import fcntl
import hashlib
import os
import platform
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError, IntegrityError, NetworkError
from deckard_deploy.running.process.environment import install, remove, require_installable
from deckard_deploy.running.process.locks import EngineLock, TorchRoute
from deckard_deploy.running.process.uv import Uv
from deckard_deploy.system.extras import install_command

CHECK = "import tiny, importlib.metadata as m; assert m.version('engine') == '1+alias'; print(tiny.version)"


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineLock:
    """Return a lock of two tiny wheels, and make uv find only those."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    folder = tmp_path / "lock"
    folder.mkdir()
    for file, name in (("engine.txt", "tiny"), ("torch-any.txt", "tinytorch")):
        digest = write_wheel(wheels, name)
        (folder / file).write_text(f"{name}==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return EngineLock(
        folder=folder,
        newest_python=(3, 99),
        libraries={},
        routes=(TorchRoute("any torch", platform.machine(), "torch-any.txt", (), 0.001, 0.001, 1),),
        distribution=("engine", "1+alias"),
        check=CHECK,
    )


def write_wheel(folder: Path, name: str) -> str:
    """Write a wheel of one module, `version = "1.0"`. Return its sha256."""
    info = f"{name}-1.0.dist-info"
    file = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr(f"{name}.py", 'version = "1.0"\n')
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def with_route(lock: EngineLock, **changed: object) -> EngineLock:
    return replace(lock, routes=(replace(lock.routes[0], **changed),))  # type: ignore[arg-type]


def mute(_line: str) -> None:
    pass


def test_install_reports_cost_first(lock: EngineLock, tmp_path: Path):
    said: list[str] = []
    installed = install(tmp_path / "env", lock=lock, say=said.append)
    assert installed.version == "1.0"
    assert not installed.reused
    assert "any torch, 0.001 GB to download, 0.001 GB on disk, about 1 s" in said[0]
    assert installed.vllm == tmp_path / "env" / "bin" / "vllm"
    assert list((tmp_path / "env").glob("lib/*/site-packages/__pycache__/tiny.*.pyc"))


def test_complete_environment_is_reused(lock: EngineLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = install(tmp_path / "env", lock=lock, say=mute)
    monkeypatch.setenv("UV_FIND_LINKS", "/nonexistent")  # so that nothing can be built
    said: list[str] = []
    assert install(tmp_path / "env", lock=lock, say=said.append) == replace(first, reused=True)
    assert said == []


def change_lock(lock: EngineLock, _env: Path) -> None:
    (lock.folder / "engine.txt").write_text("# resolved anew\n" + (lock.folder / "engine.txt").read_text())


def lose_python(_lock: EngineLock, env: Path) -> None:
    (env / "bin" / "python").unlink()
    (env / "bin" / "python").symlink_to("/nonexistent/python3")


def empty_stamp(_lock: EngineLock, env: Path) -> None:
    (env / "installed.json").write_text("")


def strange_stamp(_lock: EngineLock, env: Path) -> None:
    (env / "installed.json").write_text("[]")


@pytest.mark.parametrize("outdate", [change_lock, lose_python, empty_stamp, strange_stamp])
def test_outdated_environment_is_rebuilt(
    lock: EngineLock, tmp_path: Path, outdate: Callable[[EngineLock, Path], None]
):
    env = tmp_path / "env"
    install(env, lock=lock, say=mute)
    (env / "leftover").touch()
    outdate(lock, env)
    assert not install(env, lock=lock, say=mute).reused
    assert not (env / "leftover").exists()


KILLED_INSTALL = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_environment import EngineLock, TorchRoute, install
def say(line):
    if line.startswith({fatal!r}):
        os.kill(os.getpid(), signal.SIGKILL)
install(Path({env!r}), lock=eval({lock!r}, dict(globals(), PosixPath=Path)), say=say)
"""


def die_at(fatal: str, env: Path, lock: EngineLock) -> int:
    """Install in a process that sends itself SIGKILL at a progress line that starts with `fatal`."""
    program = KILLED_INSTALL.format(
        tests=str(Path(__file__).parent), fatal=fatal, env=str(env), lock=repr(lock)
    )
    return subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode


@pytest.mark.parametrize("fatal", ["installing the engine", "uv: Installed", "the engine loads"])
def test_install_after_kill_converges(lock: EngineLock, tmp_path: Path, fatal: str):
    env = tmp_path / "env"
    assert die_at(fatal, env, lock) == -signal.SIGKILL
    after_stamp = fatal == "the engine loads"
    assert install(env, lock=lock, say=mute).reused == after_stamp
    assert install(env, lock=lock, say=mute).reused


def test_uv_of_killed_install_keeps_the_lock(tmp_path: Path):
    slow_uv = tmp_path / "slow-uv"
    slow_uv.write_text(
        f'#!/bin/sh\necho "Installed 1 package"\nwhile [ ! -e {tmp_path}/done ]; do sleep 0.05; done\n'
    )
    slow_uv.chmod(0o755)
    program = (
        "import os, signal\nfrom pathlib import Path\n"
        "from deckard_deploy.running.process.environment import _locked\n"
        "from deckard_deploy.running.process.uv import Uv\n"
        "def die(line): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"with _locked(Path({str(tmp_path / 'env')!r}), print) as holder:\n"
        f"    Uv({str(slow_uv)!r}, Path({str(tmp_path / 'env')!r}), holder, die).run('pip')\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program], check=False, timeout=60, stdout=subprocess.DEVNULL
    )
    assert killed.returncode == -signal.SIGKILL
    with (tmp_path / ".env.lock").open("w") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (tmp_path / "done").touch()
        fcntl.flock(file, fcntl.LOCK_EX)  # uv releases it when it ends


def test_interrupt_ends_uv(tmp_path: Path):
    slow_uv = tmp_path / "slow-uv"
    slow_uv.write_text(
        f"#!/bin/sh\ntrap 'touch {tmp_path}/ended; exit 1' TERM\necho Installed 1 package\n"
        "for i in $(seq 100); do sleep 0.1; done\n"
    )
    slow_uv.chmod(0o755)

    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    with (tmp_path / "lock").open("w") as holder, pytest.raises(KeyboardInterrupt):
        Uv(str(slow_uv), tmp_path / "env", holder.fileno(), interrupt).run("pip")
    assert (tmp_path / "ended").exists()


def test_second_install_waits(lock: EngineLock, tmp_path: Path):
    env = tmp_path / "env"
    holder = os.open(tmp_path / ".env.lock", os.O_CREAT | os.O_WRONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    said: list[str] = []

    def let_go(line: str) -> None:
        said.append(line)
        if line.startswith("another install"):
            os.close(holder)

    assert install(env, lock=lock, say=let_go).version == "1.0"
    assert said[0] == f"another install is at work in {env}: waiting for it"


def test_wheel_with_wrong_hash_is_refused(lock: EngineLock, tmp_path: Path):
    (lock.folder / "engine.txt").write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(IntegrityError, match=r"tiny==1\.0.*Hash mismatch"):
        install(tmp_path / "env", lock=lock, say=mute)
    assert not (tmp_path / "env" / "installed.json").exists()


def test_requirement_without_hash_is_refused(lock: EngineLock, tmp_path: Path):
    (lock.folder / "engine.txt").write_text("tiny==1.0\n")
    with pytest.raises(EnvironmentUnfitError, match="--require-hashes"):
        install(tmp_path / "env", lock=lock, say=mute)


def test_unreachable_index_is_a_network_error(
    lock: EngineLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.delenv("UV_FIND_LINKS")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")  # the discard port: nothing listens
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1:9/simple/.*Connection refused"):
        install(tmp_path / "env", lock=lock, say=mute)


def test_failed_route_falls_back_to_next(lock: EngineLock, tmp_path: Path):
    (lock.folder / "torch-gone.txt").write_text(f"nowhere==1.0 --hash=sha256:{'0' * 64}\n")
    gone = replace(lock.routes[0], name="gone torch", requirements="torch-gone.txt")
    said: list[str] = []
    installed = install(tmp_path / "env", lock=replace(lock, routes=(gone, *lock.routes)), say=said.append)
    assert installed.torch == "any torch"
    assert said[0].startswith("gone torch is not reachable (")


def test_first_route_that_answers_is_used(lock: EngineLock, tmp_path: Path):
    worse = replace(lock.routes[0], name="worse torch", requirements="torch-absent.txt")
    installed = install(tmp_path / "env", lock=replace(lock, routes=(*lock.routes, worse)), say=mute)
    assert installed.torch == "any torch"


UNFIT: dict[str, tuple[Callable[[EngineLock], EngineLock], str, str]] = {
    "disk": (lambda lock: with_route(lock, disk_gb=1e9), "the engine takes 1e+09 GB", "free "),
    "library": (
        lambda lock: replace(lock, libraries={"libno.so.9": "apt-get install libno9"}),
        "libno.so.9",
        "libno9",
    ),
    "python": (lambda lock: replace(lock, newest_python=(3, 10)), "no build for Python", "--python 3.10"),
    "machine": (lambda lock: with_route(lock, machine="pdp11"), f"a {platform.machine()} machine", "docker"),
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_unfit_host_is_refused_before_install(lock: EngineLock, tmp_path: Path, unfit: str):
    change, message, hint = UNFIT[unfit]
    with pytest.raises(EnvironmentUnfitError, match=re.escape(message)) as refused:
        install(tmp_path / "env", lock=change(lock), say=mute)
    assert hint in refused.value.hint
    with pytest.raises(EnvironmentUnfitError, match=re.escape(message)):
        require_installable(tmp_path / "env", change(lock))
    assert not (tmp_path / "env").exists()


def test_installed_engine_needs_no_space(lock: EngineLock, tmp_path: Path):
    install(tmp_path / "env", lock=lock, say=mute)
    require_installable(tmp_path / "env", lock)
    larger = with_route(lock, disk_gb=1e9)
    require_installable(tmp_path / "env", larger)


def test_missing_uv_names_the_extra(lock: EngineLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "uv", None)
    with pytest.raises(EnvironmentUnfitError) as refused:
        install(tmp_path / "env", lock=lock, say=mute)
    assert refused.value.hint == install_command("cpu")


def test_engine_that_does_not_load_is_incomplete(lock: EngineLock, tmp_path: Path):
    broken = replace(lock, check="raise SystemExit('illegal instruction')")
    with pytest.raises(EnvironmentUnfitError, match=r"does not load \(exit code 1\): illegal instruction"):
        install(tmp_path / "env", lock=broken, say=mute)
    assert not install(tmp_path / "env", lock=lock, say=mute).reused


def test_remove_deletes_environment(lock: EngineLock, tmp_path: Path):
    install(tmp_path / "env", lock=lock, say=mute)
    remove(tmp_path / "env", say=mute)
    assert not (tmp_path / "env").exists()
    remove(tmp_path / "env", say=mute)  # a missing environment is no error


def test_foreign_folder_is_kept(lock: EngineLock, tmp_path: Path):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "thesis.txt").touch()
    with pytest.raises(BadInputError, match="was not made by deckard-deploy"):
        install(tmp_path / "env", lock=lock, say=mute)
    with pytest.raises(BadInputError, match="was not made by deckard-deploy"):
        remove(tmp_path / "env", say=mute)
    assert (tmp_path / "env" / "thesis.txt").exists()


def test_addition_leaves_uv_cache_unchanged(lock: EngineLock, tmp_path: Path):
    added = replace(lock.routes[0], additions={"tiny.py": 'version = "1.0 and more"\n'})
    assert install(tmp_path / "one", lock=replace(lock, routes=(added,)), say=mute).version == "1.0 and more"
    assert install(tmp_path / "two", lock=lock, say=mute).version == "1.0"
