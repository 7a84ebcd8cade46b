"""A machine that is reached by ssh: a network namespace with an sshd, a home and keys of its own. It needs root."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import psutil

from tests.support.waiting import eventually

# RFC 2544: for benchmarks. Each process of a test run has addresses of its own.
_FIRST = int(ip_address("198.18.0.0")) + 4 * (os.getpid() % 32768)
HERE, THERE = str(ip_address(_FIRST + 1)), str(ip_address(_FIRST + 2))
PORT = 2222


class SshNode:
    """The machine, and how this one reaches it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.home = folder / "home"
        self.cache = self.home / ".cache" / "deckard-deploy" / "node"
        self.laptop = folder / "laptop"
        self.sshd: subprocess.Popen[bytes] | None = None
        self.home.mkdir()
        self.laptop.mkdir()
        for key in ("host", "other-host", "user"):
            self.make_key(key)
        self.python(sys.executable)
        self.write_client_config()

    def make_key(self, name: str) -> None:
        argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name))
        subprocess.run(argv, check=True)

    def python(self, program: str) -> None:
        """Make this program the node's python3."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
            file = folder / name
            file.unlink(missing_ok=True)
            target = program if name == "python3" else "/bin/false"
            file.write_text(f'#!/bin/sh\nexec {shlex.quote(target)} "$@"\n')
            file.chmod(0o755)

    def write_client_config(self, *, key: str = "user", host_key: str = "host", host: str = THERE) -> None:
        known = self.folder / "known_hosts"
        public = (self.folder / f"{host_key}.pub").read_text().split()
        known.write_text(f"[{THERE}]:{PORT} {public[0]} {public[1]}\n")
        (self.folder / "client").write_text(
            f"Host spark\n HostName {host}\n Port {PORT}\n User root\n IdentityFile {self.folder / key}\n"
            f" IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile {known}\n"
        )
        program = self.folder / "laptop-bin" / "ssh"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {self.folder / "client"} "$@"\n')
        program.chmod(0o755)

    def start(self) -> None:
        """Start sshd in the namespace. Programs there have the home and the path of the node."""
        (self.folder / "authorized").write_text((self.folder / "user.pub").read_text())
        (self.folder / "sshd_config").write_text(
            f"Port {PORT}\nListenAddress {THERE}\nHostKey {self.folder / 'host'}\nPidFile none\nUsePAM no\n"
            f"StrictModes no\nAuthorizedKeysFile {self.folder / 'authorized'}\nPermitRootLogin yes\n"
            f"SetEnv HOME={self.home} PATH={self.folder / 'bin'}:/usr/bin:/bin\n"
            f'ForceCommand HOME={self.home}; export HOME; eval "$SSH_ORIGINAL_COMMAND"\n'
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        argv = ("ip", "netns", "exec", self.name, "/usr/sbin/sshd", "-D", "-e", "-f")
        with (self.folder / "sshd.log").open("wb") as log:
            self.sshd = subprocess.Popen((*argv, str(self.folder / "sshd_config")), stderr=log)
        eventually(lambda: "listening" in (self.folder / "sshd.log").read_text())

    def stop(self) -> None:
        """End sshd and every connection."""
        if self.sshd is None:
            return
        processes = [psutil.Process(self.sshd.pid), *psutil.Process(self.sshd.pid).children(recursive=True)]
        for process in processes:
            if process.is_running() and process.name().startswith("sshd"):
                process.kill()
        self.sshd.wait()
        self.sshd = None

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DECKARD", "XDG"))}
        return {
            **kept,
            "HOME": str(self.laptop),
            "PATH": f"{self.folder / 'laptop-bin'}:{os.environ['PATH']}",
        }

    def command(self, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "deckard_deploy", *arguments)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the tool on the laptop."""
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment(), "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=self.laptop,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )


@contextmanager
def ssh_node(folder: Path) -> Iterator[SshNode]:
    """Yield a machine that runs, and take it away again."""
    name = f"dn{os.getpid()}"
    for command in (
        f"netns add {name}",
        f"link add {name}a type veth peer name {name}b netns {name}",
        f"address add {HERE}/30 dev {name}a",
        f"link set {name}a up",
        f"-n {name} address add {THERE}/30 dev {name}b",
        f"-n {name} link set {name}b up",
        f"-n {name} link set lo up",
    ):
        subprocess.run(("ip", *command.split()), check=True, capture_output=True)
    node = SshNode(name, folder)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        subprocess.run(("ip", "netns", "delete", name), check=True)  # and both ends of the link
