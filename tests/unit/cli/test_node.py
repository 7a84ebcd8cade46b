"""A verb on another machine by ssh: a namespace with an sshd and a home of its own."""

import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deckard_deploy.cli import on_node
from deckard_deploy.cli.main import run
from deckard_deploy.operations import down
from deckard_deploy.operations.options import Selection
from deckard_deploy.resources import PACKAGE
from deckard_deploy.running.layout import default_root
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.ssh_node import SshNode, ssh_node
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(
        shutil.which("sshd", path="/usr/sbin") is None, reason="openssh-server is not installed"
    ),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory):
    try:
        with ssh_node(tmp_path_factory.mktemp("node")) as node:
            yield node
    except subprocess.CalledProcessError as error:
        if error.cmd[0] != "ip":
            raise
        pytest.skip(f"this machine allows no network namespaces: {error.stderr.decode().strip()}")


@pytest.fixture
def fake(tmp_path: Path):
    """Yield a deployment named `box`. Its processes are ended after the test."""
    deployment = FakeDeployment(tmp_path)
    yield deployment
    deployment.end()


@pytest.fixture
def node(machine: SshNode):
    """Yield the machine in order, whatever the test before did to it."""
    yield machine
    machine.write_client_config()
    if machine.sshd is None:
        machine.start()


def calls(node: SshNode) -> list[Path]:
    return list(node.cache.glob("call-*"))


def test_verbs_run_on_node_with_files_of_laptop(node: SshNode):
    (node.laptop / "deckard.yaml").write_text("profile: spark\nname: carried\n")
    first = node.run("plan", "--node", "spark")
    second = node.run("status", "--node", "spark")
    (node.laptop / "deckard.yaml").unlink()
    assert (first.returncode, second.returncode) == (0, 2)
    assert "carried" in first.stdout
    assert "copying" in first.stderr
    assert "copying" not in second.stderr
    assert "up --node spark" in second.stderr
    assert calls(node) == []
    assert not (node.laptop / ".local").exists()


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"host_key": "other-host"}, "node spark: its host key has changed"),
        ({"key": "other-host"}, "node spark: it accepts none of your keys"),
        ({"host": "no-such-host.invalid"}, "node spark: its name is not known"),
    ],
)
def test_ssh_that_fails_is_one_line(node: SshNode, config: dict[str, str], line: str):
    node.write_client_config(**config)
    done = node.run("status", "--node", "spark")
    node.write_client_config()
    assert done.returncode == 5
    assert done.stderr.startswith(f"error: {line}\n  try: ")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("images", [(), ("--image", "a.png", "--image", "{laptop}/./b.png")])
def test_chat_runs_on_node(node: SshNode, images: tuple[str, ...]):
    for name in ("a.png", "b.png"):
        (node.laptop / name).write_bytes(b"png")
    words = [word.format(laptop=node.laptop) for word in images]
    done = node.run("chat", "--node", "spark", *words, "hello")
    assert "no such file" not in done.stderr + done.stdout
    assert "up --node spark" in done.stderr


def test_node_without_sshd_is_one_line(node: SshNode):
    node.stop()
    done = node.run("status", "--node", "spark")
    node.start()
    assert done.returncode == 5
    assert "node spark: no ssh server answers on its port" in done.stderr


def test_node_without_python_is_one_line(node: SshNode):
    python = (node.folder / "bin" / "python3").read_text()
    node.python("/bin/false")
    done = node.run("status", "--node", "spark")
    (node.folder / "bin" / "python3").write_text(python)
    assert done.returncode == 3
    assert "node spark: Python 3.11 or later is needed, found: none" in done.stderr


def test_home_that_takes_no_files_is_one_line(node: SshNode):
    kept = node.home.with_name("kept")
    node.home.rename(kept)
    node.home.write_text("no folder")
    done = node.run("status", "--node", "spark")
    node.home.unlink()
    kept.rename(node.home)
    assert done.returncode == 3
    assert "Not a directory" in done.stderr


def test_connection_cut_in_logs_ends_both_sides(node: SshNode, fake: FakeDeployment):
    release = fake.proven(fake.plan())
    state = ("--state-dir", str(fake.state.root))
    running = subprocess.Popen(
        node.command("logs", "--follow", "--node", "spark", *state),
        env={**node.environment(), "PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=node.laptop,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    assert running.stdout.readline()
    there = eventually(lambda: [each for each in psutil.process_iter() if runs_verb(each, node)])
    node.stop()
    _, errors = running.communicate(timeout=120)
    node.start()
    assert running.returncode == 5
    assert "error: node spark: the connection was cut" in errors
    psutil.wait_procs(there, timeout=60)
    assert [each for each in there if each.is_running()] == []
    assert calls(node) == []
    again = node.run("logs", "--node", "spark", *state)
    assert again.returncode == 0
    assert release.folder.is_dir()


def runs_verb(process: psutil.Process, node: SshNode) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "run" in words and any(word.startswith(str(node.cache)) for word in words)


def test_start_status_and_down_on_node(node: SshNode, fake: FakeDeployment):
    fake.proven(fake.startable(fake.plan()))
    down.run(Selection(fake.state.root), RecordingReporter())
    state = ("--state-dir", str(fake.state.root), "--node", "spark")
    started = node.run("start", *state)
    assert started.returncode == 0, started.stderr
    assert "loopback addresses above are those of spark" in started.stderr
    assert node.run("status", *state).returncode == 0
    assert fake.names() is None  # nothing listens on this machine: the engine runs on the node
    stopped = node.run("down", *state)
    assert stopped.returncode == 0, stopped.stderr
    assert node.run("status", *state).returncode == 3


def test_purge_of_last_deployment_removes_tool_there(node: SshNode, fake: FakeDeployment):
    fake.proven(fake.startable(fake.plan()))
    data = node.home / ".local" / "share"
    data.mkdir(parents=True)
    (data / default_root().name).symlink_to(fake.state.root)
    kept = node.run("down", "--node", "spark")
    assert kept.returncode == 0, kept.stderr
    assert node.cache.is_dir()
    purged = node.run("down", "--purge", "--node", "spark")
    assert purged.returncode == 0, purged.stderr
    assert not node.cache.exists()
    assert not fake.processes()


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"another archive"), gzip.compress(b"archive")[:-4], b"text"],
    ids=["another", "cut", "text"],
)
def test_damaged_archive_is_not_installed(tmp_path: Path, content: bytes):
    script = Path(on_node.__file__)
    home = {"HOME": str(tmp_path)}
    prepared = subprocess.run(
        (sys.executable, script, "prepare"), input=b'{"files": {}}', env=home, check=True, capture_output=True
    )
    name = hashlib.sha256(b"archive").hexdigest()
    done = subprocess.run((sys.executable, script, "install", name), input=content, env=home, check=False)
    folder = tmp_path / ".cache" / "deckard-deploy" / "node"
    assert done.returncode == on_node.DAMAGED
    assert [each.name for each in folder.iterdir()] == [json.loads(prepared.stdout)["call"]]


def test_purge_keeps_what_another_call_uses(tmp_path: Path):
    # As in an archive: not in the folder of the verbs, whose names would hide those of libraries.
    script = shutil.copy(on_node.__file__, tmp_path / "run.py")
    home = {"HOME": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    folder = tmp_path / ".cache" / "deckard-deploy" / "node"
    purge = {"files": {}, "environment": {}, "arguments": ["down", "--purge", "--name", "none", "--help"]}
    for others, kept in ((1, True), (0, False)):
        answers = []
        for _ in range(1 + others):
            done = subprocess.run(
                (sys.executable, script, "prepare"),
                input=json.dumps(purge).encode(),
                env=home,
                check=True,
                capture_output=True,
            )
            answers.append(json.loads(done.stdout)["call"])
        ended = subprocess.run(
            (sys.executable, script, "run", answers[0]), env=home, check=False, capture_output=True
        )
        assert ended.returncode == 0, ended.stderr
        assert folder.exists() is kept
        for other in answers[1:]:
            shutil.rmtree(folder / other)


def test_file_that_a_verb_writes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["doctor", "--node", "spark", "--save", str(tmp_path / "facts.json")]) == 2
    assert "writes on the node" in capsys.readouterr().err


def test_report_has_no_node(capsys: pytest.CaptureFixture[str]):
    assert run(["bench", "report", "--node", "spark"]) == 2
    assert "--node" in capsys.readouterr().err


def test_call_is_not_stored_where_the_archive_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A call may hold a token, which must not stay on a node that cannot run it. ssh stands for a full disk there."""
    facts = {"python": "python3", "version": "{}.{}".format(*sys.version_info), "machine": platform.machine()}
    answer = json.dumps(facts | {"have": [], "home": "/home"})
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f'#!/bin/sh\ncat >{tmp_path}/stdin\necho "$*" >>{tmp_path}/asked\n'
        f"case \"$*\" in *look*) printf '\\n%s\\n' '{answer}';; *) echo no space >&2; exit 97;; esac\n"
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run(["up", "--node", "spark"]) == 3
    assert "no space" in capsys.readouterr().err
    asked = (tmp_path / "asked").read_text()
    assert "install" in asked
    assert "prepare" not in asked


def test_folder_of_laptop_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["up", "--node", "spark", "--model", f"{tmp_path}/"]) == 2
    assert "is a folder of this machine" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["-oProxyCommand=false", "two words", ""])
def test_name_that_ssh_would_take_as_option_is_refused(name: str, capsys: pytest.CaptureFixture[str]):
    assert run(["status", f"--node={name}"]) == 2
    assert "is no node" in capsys.readouterr().err
