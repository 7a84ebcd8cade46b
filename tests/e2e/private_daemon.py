"""A docker daemon of a test's own, which may be killed, stopped and started again without anybody noticing.

With a containerd beside it, as distributions run it, so that containers may outlive the daemon. It shares the machine's
docker0: with another bridge or with none, dockerd 20.10 removes that one, which the machine's own daemon still uses.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.running.docker.client import DockerClient

DEADLINE_S = 60
NETWORKS = "10.213.0.0/16"


class PrivateDaemon:
    """dockerd over the data in `data`. `engine` is how the program under test would reach it."""

    def __init__(self, folder: Path, data: Path, network: tuple[str, ...]) -> None:
        self.folder, self._data, self._network = folder, data, network
        self.host = f"unix://{folder}/docker.sock"
        self.containerd = self._begin(
            "containerd",
            f"--root={data}/containerd",
            f"--state={folder}/state",
            f"--address={folder}/containerd.sock",
        )
        self.start()

    @property
    def engine(self) -> DockerClient:
        return DockerClient(environment={**os.environ, "DOCKER_HOST": self.host}, say=print)

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        (self.folder / "pid").unlink(missing_ok=True)  # of one that was killed
        self.process = self._begin(
            "dockerd", f"--host={self.host}", f"--data-root={self._data}", f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/pid", f"--containerd={self.folder}/containerd.sock", *self._network,
            f"--default-address-pool=base={NETWORKS},size=24",
        )  # fmt: skip
        deadline = time.monotonic() + DEADLINE_S
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "it never answered"
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            with self.engine.connect() as api:
                return bool(api.ping())
        except EnvironmentUnfitError:
            return False

    def end(self, number: signal.Signals) -> None:
        """Signal the daemon, and wait until it is gone."""
        self.process.send_signal(number)
        self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """Nothing of it is left: no container, no process."""
        self.process.send_signal(signal.SIGCONT)
        if self.process.poll() is not None:
            self.start()
        environment = {**os.environ, "DOCKER_HOST": self.host}
        for what in (["ps", "-aq"], ["network", "ls", "-q", "--filter", "type=custom"]):
            found = subprocess.run(
                ["docker", *what], env=environment, capture_output=True, text=True, check=True
            )
            remove = ["rm", "-f"] if what[0] == "ps" else ["network", "rm"]
            if ids := found.stdout.split():
                subprocess.run(["docker", *remove, *ids], env=environment, capture_output=True, check=True)
        self.end(signal.SIGTERM)
        self.containerd.terminate()
        self.containerd.wait(DEADLINE_S)

    def _begin(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)


@contextmanager
def private_daemon(
    *, size: str | None = None, network: tuple[str, ...] = ("--iptables=false", "--bridge=docker0")
) -> Iterator[PrivateDaemon]:
    """One that is gone afterwards; with `size`, its images lie on a disk of that size.

    network: its options; none in a network namespace of its own, where docker's DNS works too.
    """
    folder = Path(tempfile.mkdtemp(prefix="dk"))  # short: sockets lie in it
    data = folder / "data"
    data.mkdir()
    if size:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", data], check=True)
    try:
        daemon = PrivateDaemon(folder, data, network)
        try:
            yield daemon
        finally:
            daemon.close()
    finally:
        for _ in range(2 if size else 1):  # dockerd mounts its data on itself
            subprocess.run(["umount", "--lazy", data], capture_output=True, check=False)
        shutil.rmtree(folder)
