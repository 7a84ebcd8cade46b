"""Files out of vLLM's wheel, on disk or by ranges over HTTP."""

import contextlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError, NetworkError
from deckard_deploy.patching.base_files import MAX_MODULE_BYTES
from deckard_deploy.patching.wheel import from_wheel
from tests.support.patch_set import OLD

TARGETS = tuple(OLD)


CONTENT = {target: text.encode() for target, text in OLD.items()}


SIZE = 3_000_000  # of the rest of the wheel


def wheel_bytes(files: dict[str, bytes]) -> bytes:
    """Return a wheel whose first member is large and not compressed, like vLLM's libraries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("vllm/_C.abi3.so", bytes(SIZE))
        for name, content in files.items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


class WheelServer(BaseHTTPRequestHandler):
    """Serves one file, by ranges unless told otherwise; `sent` counts bytes."""

    def __init__(self, content: bytes, fault: str, sent: list[int], *arguments: object) -> None:
        self.content, self.fault, self.sent = content, fault, sent
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.fault == "404":
            self.send_error(404)
            return
        first, last = (int(number) for number in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = self.content[first : last + 1]
        if self.fault == "whole file":
            self.send_response(200)
            self.end_headers()
            return
        if self.fault == "short" and len(part) > 1:
            part = part[:-1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        self.sent.append(len(part))

    def log_message(self, *_: object) -> None:
        pass


Serve = Callable[..., tuple[str, list[int]]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ThreadingHTTPServer] = []

    def start(content: bytes, fault: str = "") -> tuple[str, list[int]]:
        sent: list[int] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(WheelServer, content, fault, sent))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/vllm-0.19.1-cp38-abi3-linux_x86_64.whl", sent

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_files_are_read_from_local_wheel(tmp_path: Path):
    path = tmp_path / "vllm-0.19.1-py3-none-any.whl"
    path.write_bytes(wheel_bytes(CONTENT))
    assert from_wheel(str(path), TARGETS).files == CONTENT


def test_remote_wheel_is_read_by_ranges(serve: Serve):
    url, sent = serve(wheel_bytes(CONTENT))
    base = from_wheel(url, TARGETS)
    assert base.files == CONTENT
    assert base.origin == "wheel vllm-0.19.1-cp38-abi3-linux_x86_64.whl"
    assert sum(sent) < SIZE / 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("404", "404"), ("whole file", "does not answer ranges"), ("short", "bytes instead of")],
)
def test_misbehaving_server_is_network_error(serve: Serve, fault: str, reason: str):
    url, _ = serve(wheel_bytes(CONTENT), fault)
    with pytest.raises(NetworkError, match=reason):
        from_wheel(url, TARGETS)


def test_missing_server_is_network_error(free_url: str):
    with pytest.raises(NetworkError):
        from_wheel(free_url, TARGETS)


@pytest.fixture
def free_url() -> str:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    return f"http://127.0.0.1:{port}/vllm.whl"


def test_file_that_a_release_dropped_may_be_left_out(tmp_path: Path):
    path = tmp_path / "vllm.whl"
    path.write_bytes(wheel_bytes({TARGETS[0]: CONTENT[TARGETS[0]]}))
    assert from_wheel(str(path), TARGETS, missing_ok=True).files == {TARGETS[0]: CONTENT[TARGETS[0]]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no zip at all" * 100, "not a wheel"),
        (b"", "not a wheel"),
        (wheel_bytes({}), "has no vllm/v1/spec_decode/eagle"),
        (wheel_bytes({**CONTENT, TARGETS[0]: bytes(MAX_MODULE_BYTES + 1)}), "more than any module of vLLM"),
    ],
    ids=["not a zip", "empty", "another wheel", "a bomb"],
)
def test_file_other_than_vllm_wheel_is_refused(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "vllm.whl"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=reason):
        from_wheel(str(path), TARGETS)


def test_wheel_with_flipped_bit_is_refused(tmp_path: Path):
    stream, path = io.BytesIO(), tmp_path / "vllm.whl"
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(TARGETS[0], CONTENT[TARGETS[0]] * 100)
    for bit in range(8 * len(stream.getvalue())):
        damaged = bytearray(stream.getvalue())
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with contextlib.suppress(
            IntegrityError
        ):  # raised or not: the bit may be in an unused field, such as a time
            from_wheel(str(path), TARGETS[:1])


def test_missing_wheel_is_refused(tmp_path: Path):
    with pytest.raises(EnvironmentUnfitError, match="No such file"):
        from_wheel(str(tmp_path / "vllm.whl"), TARGETS)
