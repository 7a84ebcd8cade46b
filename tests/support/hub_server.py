"""A hub on loopback that can misbehave: real HTTP, for huggingface_hub's client and for our transfer."""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40
REPO = "owner/model"
_PIECE = 64 << 10


def content(size: int, seed: int = 0) -> bytes:
    """Return pseudo-random bytes without repetition."""
    blocks = (hashlib.sha256(f"{seed}:{number}".encode()).digest() for number in range(-(-size // 32)))
    return b"".join(blocks)[:size]


class Hub:
    """Files by name.

    `fault(handler, name, start, end)` may answer a GET of a file itself and return True; so may
    `file_rule(handler, name)` any request for a file, and `api_rule(handler)` a request for metadata.
    """

    def __init__(self, files: dict[str, bytes], *, small: tuple[str, ...] = ("config.json",)) -> None:
        self.files, self.small = files, small
        self.fault: Callable[[Answer, str, int, int], bool] = lambda *_: False
        self.file_rule: Callable[[Answer, str], bool] = lambda *_: False
        self.api_rule: Callable[[Answer], bool] = lambda _: False
        self.api_status: list[tuple[int, dict[str, str]]] = []
        self.ranges: list[tuple[str, int, int]] = []
        self.requests: list[dict[str, str]] = []
        self.moved_to = ""
        self.license: object = None
        self.sent = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Answer,), {"hub": self}))
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def served(self, name: str) -> int:
        """Return the number of requested bytes of a file."""
        return sum(end - start for asked, start, end in self.ranges if asked == name)

    def siblings(self) -> list[dict[str, object]]:
        listed: list[dict[str, object]] = []
        for name, data in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
            if name not in self.small:
                entry["lfs"] = {
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 134,
                }
            listed.append(entry)
        return listed


class Answer(BaseHTTPRequestHandler):
    """One connection."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(dict(self.headers))
        try:
            if self.hub.moved_to and REPO in path:
                self.reply(307, b"", {"Location": path.replace(REPO, self.hub.moved_to)})
            elif path.startswith("/api/models/"):
                self._model(path)
            else:
                self._file(path.partition("/resolve/")[2].partition("/")[2])
        except OSError:
            self.close_connection = True  # the client has left

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _model(self, path: str) -> None:
        if self.hub.api_rule(self):
            return
        if self.hub.api_status:
            status, headers = self.hub.api_status.pop(0)
            self.reply(status, b"{}", {"Content-Type": "application/json", **headers})
            return
        entries = self.hub.siblings()
        if "/tree/" in path:
            named = [
                {"type": "file", "path": one["rfilename"], "oid": one["blobId"], **one} for one in entries
            ]
            for one in named:
                if "lfs" in one:
                    one["lfs"] = {"oid": one["lfs"]["sha256"], **one["lfs"]}  # type: ignore[index, dict-item]
            body = json.dumps(named)
        else:
            card = {"license": self.hub.license} if self.hub.license else {}
            about = {"id": REPO, "modelId": REPO, "sha": COMMIT, "private": False, "cardData": card}
            body = json.dumps({**about, "siblings": entries})
        self.reply(200, body.encode(), {"Content-Type": "application/json"})

    def _file(self, name: str) -> None:
        data = self.hub.files.get(name)
        if data is None:
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if self.hub.file_rule(self, name):
            return
        start, end = self.asked(len(data))
        if self.command == "GET":
            with self.hub.lock:
                self.hub.ranges.append((name, start, end))
            if self.hub.fault(self, name, start, end):
                return
        self.send_bytes(data, start, end)

    def asked(self, size: int) -> tuple[int, int]:
        said = self.headers.get("Range")
        if not said or self.command == "HEAD":
            return 0, size
        first, _, last = said.removeprefix("bytes=").partition("-")
        return int(first), int(last) + 1 if last else size

    def head(self, data: bytes, start: int, end: int, **changes: str) -> None:
        """Send the status line and headers of a correct answer, with changes."""
        etag = hashlib.sha256(data).hexdigest()
        ranged = self.headers.get("Range") is not None and self.command == "GET"
        self.send_response(206 if ranged else 200)
        headers = {
            "Content-Length": str(end - start),
            "ETag": f'"{etag}"',
            "X-Linked-Etag": f'"{etag}"',
            "X-Linked-Size": str(len(data)),
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
            **({"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if ranged else {}),
        }
        for key, value in (
            headers | {key.replace("_", "-"): value for key, value in changes.items()}
        ).items():
            self.send_header(key, value)
        self.end_headers()

    def send_bytes(self, data: bytes, start: int, end: int) -> None:
        self.head(data, start, end)
        if self.command == "HEAD":
            return
        for position in range(start, end, _PIECE):
            piece = data[position : min(end, position + _PIECE)]
            self.wfile.write(piece)
            with self.hub.lock:
                self.hub.sent += len(piece)

    def cut(self) -> None:
        """End the connection here."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()

    def wait(self, seconds: float) -> None:
        """Send nothing."""
        time.sleep(seconds)


@contextlib.contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


def flipped(answer: Answer, name: str, start: int, end: int) -> bool:
    data = bytearray(answer.hub.files[name])
    data[start] ^= 1
    answer.head(answer.hub.files[name], start, end)
    answer.wfile.write(data[start:end])
    return True
