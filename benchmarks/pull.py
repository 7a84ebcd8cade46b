"""The cost of `pull` and `verify`, as ratios measured in one run: python benchmarks/pull.py [--gb 2] [--rounds 3]

A hub on loopback sends files from memory with sendfile(2). `pull`, hashes included, against `hf download`,
which computes none; `verify` against sha256sum in parallel on the same cores; memory of `pull`. A ratio is
the median of the ratios of pairs, so that a machine whose speed drifts does not distort it.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

COMMIT = "a" * 40
PULL = [sys.executable, "-m", "deckard_deploy", "pull", "--profile", "spark", "--drafter", "none"]
VERIFY = [sys.executable, "-m", "deckard_deploy", "verify", "--profile", "spark", "--drafter", "none"]
DOWNLOAD = "import sys, huggingface_hub as h; h.snapshot_download('o/m', local_dir=sys.argv[1])"


class Sender(BaseHTTPRequestHandler):
    """Serve the files of a folder as a repository of any name."""

    protocol_version = "HTTP/1.1"
    folder: Path
    hashes: dict[str, str]

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_HEAD(self) -> None:
        """Answer like GET, without the bytes."""
        self.do_GET()

    def do_GET(self) -> None:
        """Send the listing, or a range of a file."""
        path = urlsplit(self.path).path
        if path.startswith("/api/"):
            self._listing(tree="/tree/" in path)
            return
        name = path.rpartition("/")[2]
        size = (self.folder / name).stat().st_size
        asked = self.headers.get("Range") if self.command == "GET" else None
        first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(first), int(last) + 1 if last else size
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        for header in ("ETag", "X-Linked-Etag"):
            self.send_header(header, f'"{self.hashes[name]}"')
        self.send_header("X-Linked-Size", str(size))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.flush()
            with (self.folder / name).open("rb") as file:
                while start < end:
                    start += os.sendfile(self.connection.fileno(), file.fileno(), start, end - start)

    def _listing(self, *, tree: bool) -> None:
        sizes = {name: (self.folder / name).stat().st_size for name in self.hashes}
        if tree:
            answer: object = [
                {"type": "file", "path": name, "size": size, "oid": "b" * 40,
                 "lfs": {"oid": self.hashes[name], "size": size, "pointerSize": 134}}
                for name, size in sizes.items()
            ]  # fmt: skip
        else:
            siblings = [
                {"rfilename": name, "size": size, "blobId": "b" * 40,
                 "lfs": {"sha256": self.hashes[name], "size": size, "pointerSize": 134}}
                for name, size in sizes.items()
            ]  # fmt: skip
            answer = {"id": "o/m", "modelId": "o/m", "sha": COMMIT, "siblings": siblings, "private": False}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def random_file(path: Path, size: int) -> str:
    """Write random bytes and return their SHA-256."""
    block, digest = os.urandom(64 << 20), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(0, size, len(block)):
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


class Cost(NamedTuple):
    """Elapsed and processor time in seconds, and the largest memory in KiB."""

    wall: float
    cpu: float
    memory: int


def cost(command: list[str], environment: dict[str, str]) -> Cost:
    """Run a command and return its cost. Raises SystemExit with its messages when it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - started
    if status:
        raise SystemExit((process.stderr.read() if process.stderr else b"").decode())
    return Cost(took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gb", type=float, default=2, help="10^9 bytes, in two files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="a file system in memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        root = Path(scratch)
        Sender.folder = root / "hub"
        Sender.folder.mkdir()
        each = int(options.gb * 1e9 / 2)
        names = [f"model-{number}.safetensors" for number in (1, 2)]
        Sender.hashes = {name: random_file(Sender.folder / name, each) for name in names}
        server = ThreadingHTTPServer(("127.0.0.1", 0), Sender)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        measure(root, f"http://127.0.0.1:{server.server_address[1]}", options.rounds)


def measure(root: Path, endpoint: str, rounds: int) -> None:
    """Measure pairs in turn and print the ratios."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(root / "home"), "DECKARD_HOME": str(root / "state")}
    environment = os.environ | own | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program does not compile itself each time
    folder = root / "state" / "models" / "deckard-31b"
    ratios, checks, whole, fast, memory = [], [], [], [], []
    for _ in range(rounds):
        theirs = cost([sys.executable, "-c", DOWNLOAD, str(root / "hf")], environment)
        shutil.rmtree(root / "hf")
        ours = cost(PULL, environment)
        ratios.append(ours.wall / theirs.wall)
        memory.append(ours.memory)
        parallel = sums_seconds(sorted(str(path) for path in folder.glob("*.safetensors")))
        fast.append(cost([*VERIFY, "--fast"], environment))
        full = cost(VERIFY, environment)
        checks.append((full.wall - fast[-1].wall) / parallel)
        whole.append(full.wall / parallel)
        print(f"pull {ours.wall:.2f} s, hf download {theirs.wall:.2f} s", end="; ")
        print(f"verify {full.wall:.2f} s, sha256sum {parallel:.2f} s", flush=True)
        shutil.rmtree(root / "state")
    print(f"pull / hf download: {statistics.median(ratios):.2f}")
    print(f"verify, start of the program included / parallel sha256sum: {statistics.median(whole):.2f}")
    print(f"hashing of verify alone / parallel sha256sum: {statistics.median(checks):.2f}")
    wall = statistics.median(each.wall for each in fast)
    cpu = statistics.median(each.cpu for each in fast)
    print(f"verify --fast, the whole command: {wall:.2f} s, of which {cpu:.2f} s of a processor")
    print(f"memory of pull: {statistics.median(memory) / 1024:.0f} MiB")


def sums_seconds(names: list[str]) -> float:
    """Return the elapsed seconds of sha256sum, one process per file, in parallel."""
    started = time.perf_counter()
    running = [subprocess.Popen(["sha256sum", name], stdout=subprocess.DEVNULL) for name in names]
    for process in running:
        process.wait()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
