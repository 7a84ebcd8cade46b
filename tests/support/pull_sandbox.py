"""The place of the faults: a hub, a folder, and pulls by this package or by a copy without one guard."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.guards import remove_guard
from tests.support.hub_server import Answer, Hub

CHECKOUT = Path(__file__).resolve().parents[2]
BIG = "model.safetensors"
SEGMENT = 256 << 10
HubFault = Callable[[Answer, str, int, int], bool]


@dataclass(frozen=True)
class PullResult:
    """The end of a pull; `said` are its lines while it ran."""

    code: int
    message: str
    hint: str
    said: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def names(self, code: int, *words: str) -> bool:
        """Return True for this exit code, one line with all the words, and a next command."""
        return (
            self.code == code and all(word in self.message + self.hint for word in words) and self.is_one_line
        )

    @property
    def is_one_line(self) -> bool:
        return "\n" not in self.message and bool(self.hint)


class PullSandbox:
    """`package` is the folder that holds deckard_deploy."""

    def __init__(self, hub: Hub, root: Path, package: Path = CHECKOUT) -> None:
        self.hub, self.root, self.package = hub, root, package
        self.folder = root / "models" / "m"
        self.more: dict[str, str] = {}
        self.wrapper: list[str] = []

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """A Python of its own with the package and the hub of this sandbox."""
        names = ("PATH", "LANG", "SSL_CERT_FILE")
        own = {
            "HF_ENDPOINT": self.hub.url,
            "HF_TOKEN": "hf_secret",
            "HF_HOME": str(self.root / "hf-home"),
            "HOME": str(self.root),
            "DECKARD_HOME": str(self.root / "state"),
            "PYTHONPATH": f"{self.package}:{CHECKOUT}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.Popen(
            [*self.wrapper, sys.executable, *arguments],
            env={name: os.environ[name] for name in names if name in os.environ} | own | self.more,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def begin(self, *fakes: str) -> "subprocess.Popen[str]":
        return self.start(str(Path(__file__).with_name("pull_worker.py")), str(self.folder), *fakes)

    def pull(self, *fakes: str) -> PullResult:
        return ended(self.begin(*fakes))

    def is_right(self) -> bool:
        """Return True if every file has the right bytes and no file is unfinished."""
        wanted = {name: data for name, data in self.hub.files.items() if name != "tool.py"}
        found = {name: (self.folder / name).read_bytes() for name in wanted if (self.folder / name).exists()}
        return found == wanted and not (self.folder / ".deckard" / "parts").exists()

    def parts(self) -> list[str]:
        return sorted(path.suffix for path in self.folder.rglob("parts/*"))


def ended(process: "subprocess.Popen[str]") -> PullResult:
    out, err = process.communicate(timeout=60)
    if not out.startswith("{"):
        return PullResult(process.returncode, err, "")
    return PullResult(**json.loads(out))


def package_without(root: Path, mark: str, instead: str | None) -> Path:
    """Return a folder, `root`, with a copy of the package that lacks the guard with this mark."""
    copy = root / "deckard_deploy"
    shutil.copytree(CHECKOUT / "deckard_deploy", copy)  # with compiled files: Python sees which are stale
    remove_guard(copy, mark, instead)
    return root


def times(count: int, fault: HubFault) -> HubFault:
    """The fault for the first `count` requests for the big file."""
    left, lock = [count], threading.Lock()

    def limited(answer: Answer, name: str, start: int, end: int) -> bool:
        with lock:
            if name != BIG or not left[0]:
                return False
            left[0] -= 1
        return fault(answer, name, start, end)

    return limited


def once_each(fault: HubFault) -> HubFault:
    """The fault for the first request for each segment, so that no connection meets it twice in a row."""
    seen: set[int] = set()

    def limited(answer: Answer, name: str, start: int, end: int) -> bool:
        if name != BIG or start % SEGMENT or start in seen:
            return False
        seen.add(start)
        return fault(answer, name, start, end)

    return limited


def always(fault: HubFault) -> HubFault:
    return lambda answer, name, start, end: name == BIG and fault(answer, name, start, end)


def status(code: int, body: bytes = b"oh no", **headers: str) -> HubFault:
    def fault(answer: Answer, _name: str, _start: int, _end: int) -> bool:
        answer.reply(code, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


def half(answer: Answer, name: str, start: int, end: int) -> bool:
    """Send half of the range, then close the connection."""
    data = answer.hub.files[name]
    answer.head(data, start, end)
    answer.wfile.write(data[start : (start + end) // 2])
    answer.cut()
    return True


def drip(answer: Answer, name: str, start: int, end: int) -> bool:
    """Send a byte now and then, which no socket timeout detects."""
    data = answer.hub.files[name]
    answer.head(data, start, end)
    for byte in data[start : start + 12]:
        answer.wfile.write(bytes([byte]))
        answer.wait(0.1)
    answer.cut()
    return True


def whole_file(answer: Answer, name: str, _start: int, _end: int) -> bool:
    """Send the whole file with a 200 for any range."""
    answer.reply(200, answer.hub.files[name], {"ETag": '"other"'})
    return True


def shifted(answer: Answer, name: str, start: int, end: int) -> bool:
    """Send another range than the requested one, with its own Content-Range."""
    data = answer.hub.files[name]
    answer.head(data, start, end, Content_Range=f"bytes {start - 7}-{end - 8}/{len(data)}")
    answer.wfile.write(data[start - 7 : end - 7] if start else data[start:end])
    return True
