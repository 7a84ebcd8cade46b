"""Malformed safetensors files, by their fault."""

import json
import struct

from deckard_deploy.weights.safetensors_header import LARGEST_HEADER

ONE = {"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}


def malformed_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(**changes: object) -> dict[str, object]:
    return {"w": {**ONE["w"], **changes}}


MALFORMED = {
    "empty": b"",
    "7 bytes": b"1234567",
    "no header": struct.pack("<Q", 0),
    "one byte of header": struct.pack("<Q", 1) + b"{",
    "endless header": struct.pack("<Q", 2**63) + b"{}",
    "one byte over the limit": struct.pack("<Q", LARGEST_HEADER + 1) + b"{}",
    "header past the end": malformed_file(ONE, b"", length=10**6),
    "not json": malformed_file(b"{abc"),
    "spaces before it": malformed_file(b"  {}"),
    "not utf-8": malformed_file(b'{"\xff":1}'),
    "a list": malformed_file(b"[]"),
    "cut data": malformed_file(ONE, b"12"),
    "no data": malformed_file(ONE),
    "trailing bytes": malformed_file(ONE, b"12345"),
    "overlap": malformed_file(ONE | {"b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}, b"123456"),
    "hole": malformed_file(ONE | {"b": {"dtype": "U8", "shape": [2], "data_offsets": [6, 8]}}, b"12345678"),
    "hole at the front": malformed_file(entry(data_offsets=[2, 6]), b"123456"),
    "negative offset": malformed_file(entry(data_offsets=[-4, 0]), b"1234"),
    "minus nothing as an offset": malformed_file(
        b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[-0,4]}}', b"1234"
    ),
    "reversed offsets": malformed_file(entry(data_offsets=[4, 0]), b"1234"),
    "three offsets": malformed_file(entry(data_offsets=[0, 2, 4]), b"1234"),
    "offsets as text": malformed_file(entry(data_offsets=["0", "4"]), b"1234"),
    "fractional offset": malformed_file(entry(data_offsets=[0, 4.0]), b"1234"),
    "huge offset": malformed_file(entry(data_offsets=[0, 2**64]), b"1234"),
    "unknown dtype": malformed_file(entry(dtype="X9"), b"1234"),
    "dtype as number": malformed_file(entry(dtype=9), b"1234"),
    "dtype as list": malformed_file(entry(dtype=["U8"]), b"1234"),
    "shape too small": malformed_file(entry(shape=[3]), b"1234"),
    "shape that overflows": malformed_file(entry(dtype="F32", shape=[2**62, 8]), b"1234"),
    "shape that overflows before it is nothing": malformed_file(
        entry(shape=[2**63, 4, 0], data_offsets=[0, 0])
    ),
    "shape of 40,000 large sizes": malformed_file(entry(shape=[2**63 - 1] * 40_000), b"1234"),
    "negative shape": malformed_file(entry(shape=[-4]), b"1234"),
    "boolean shape": malformed_file(entry(shape=[True, 4]), b"1234"),
    "no shape": malformed_file({"w": {"dtype": "U8", "data_offsets": [0, 4]}}, b"1234"),
    "unknown key": malformed_file(entry(surprise=1), b"1234"),
    "entry is a list": malformed_file({"w": [1]}, b"1234"),
    "same name twice": malformed_file(
        b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
        b"12",
    ),
    "name with an escape": malformed_file({"\x1b[2J": ONE["w"]}, b"1234"),
    "lone surrogate": malformed_file(b'{"\\ud800":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b"1234"),
    "metadata of numbers": malformed_file({"__metadata__": {"a": 1}, **ONE}, b"1234"),
    "metadata is a list": malformed_file({"__metadata__": [], **ONE}, b"1234"),
    "nested too deeply": malformed_file(b'{"a":' * 100_000),
    "number of 5,000 digits": malformed_file(b'{"w":' + b"9" * 5000 + b"}"),
    "NaN": malformed_file(b'{"w":{"dtype":"U8","shape":[NaN],"data_offsets":[0,4]}}', b"1234"),
    "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"a" * 64
    + b"\nsize 20500000000\n",
    "html": b"<!DOCTYPE html><html>login</html>",
    "zeros": bytes(4096),
    "pickle": b"\x80\x04\x95." + bytes(20),
    "zip": b"PK\x03\x04" + bytes(20),
}
# Files that the safetensors library accepts and this reader refuses: ambiguous or unprintable.
STRICTER = {"same name twice", "name with an escape", "unknown key", "spaces before it"}
