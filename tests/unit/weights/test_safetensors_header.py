import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from deckard_deploy.errors import IntegrityError
from deckard_deploy.weights.safetensors_header import LARGEST_HEADER, parse_header, read_header

ONE = {"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}


def made(header: object, data: bytes = b"", length: int | None = None) -> bytes:
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
    "header past the end": made(ONE, b"", length=10**6),
    "not json": made(b"{abc"),
    "spaces before it": made(b"  {}"),
    "not utf-8": made(b'{"\xff":1}'),
    "a list": made(b"[]"),
    "cut data": made(ONE, b"12"),
    "no data": made(ONE),
    "trailing bytes": made(ONE, b"12345"),
    "overlap": made(ONE | {"b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}, b"123456"),
    "hole": made(ONE | {"b": {"dtype": "U8", "shape": [2], "data_offsets": [6, 8]}}, b"12345678"),
    "hole at the front": made(entry(data_offsets=[2, 6]), b"123456"),
    "negative offset": made(entry(data_offsets=[-4, 0]), b"1234"),
    "reversed offsets": made(entry(data_offsets=[4, 0]), b"1234"),
    "three offsets": made(entry(data_offsets=[0, 2, 4]), b"1234"),
    "offsets as text": made(entry(data_offsets=["0", "4"]), b"1234"),
    "fractional offset": made(entry(data_offsets=[0, 4.0]), b"1234"),
    "huge offset": made(entry(data_offsets=[0, 2**64]), b"1234"),
    "unknown dtype": made(entry(dtype="X9"), b"1234"),
    "dtype as number": made(entry(dtype=9), b"1234"),
    "dtype as list": made(entry(dtype=["U8"]), b"1234"),
    "shape too small": made(entry(shape=[3]), b"1234"),
    "shape that overflows": made(entry(dtype="F32", shape=[2**62, 8]), b"1234"),
    "negative shape": made(entry(shape=[-4]), b"1234"),
    "boolean shape": made(entry(shape=[True, 4]), b"1234"),
    "no shape": made({"w": {"dtype": "U8", "data_offsets": [0, 4]}}, b"1234"),
    "unknown key": made(entry(surprise=1), b"1234"),
    "entry is a list": made({"w": [1]}, b"1234"),
    "same name twice": made(
        b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
        b"12",
    ),
    "name with an escape": made({"\x1b[2J": ONE["w"]}, b"1234"),
    "lone surrogate": made(b'{"\\ud800":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b"1234"),
    "metadata of numbers": made({"__metadata__": {"a": 1}, **ONE}, b"1234"),
    "metadata is a list": made({"__metadata__": [], **ONE}, b"1234"),
    "nested too deeply": made(b'{"a":' * 100_000),
    "number of 5,000 digits": made(b'{"w":' + b"9" * 5000 + b"}"),
    "NaN": made(b'{"w":{"dtype":"U8","shape":[NaN],"data_offsets":[0,4]}}', b"1234"),
    "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 20500000000\n",
    "html": b"<!DOCTYPE html><html>login</html>",
    "zeros": bytes(4096),
    "pickle": b"\x80\x04\x95." + bytes(20),
    "zip": b"PK\x03\x04" + bytes(20),
}
# What the safetensors library takes, and this reader refuses: ambiguous, or not fit to be printed.
STRICTER = {"same name twice", "name with an escape", "unknown key", "spaces before it"}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        read_header(path)
    assert caught.value.message.startswith(str(path))
    assert "\n" not in caught.value.message
    assert len(caught.value.message) <= len(str(path)) + 250


@pytest.mark.parametrize(
    ("case", "word"),
    [("git lfs pointer", "Git LFS pointer"), ("html", "HTML page"), ("pickle", "pickle"), ("zeros", "zeros")],
)
def test_what_it_is_instead_is_said(tmp_path, case, word):
    path = tmp_path / "model.safetensors"
    path.write_bytes(MALFORMED[case])
    with pytest.raises(IntegrityError, match=word):
        read_header(path)


@pytest.mark.parametrize("case", sorted(MALFORMED.keys() - STRICTER))
def test_the_library_refuses_them_too(case):
    with pytest.raises((SafetensorError, OverflowError)):
        deserialize(MALFORMED[case])  # type: ignore[no-untyped-call]


def test_a_sound_file_gives_dtype_shape_and_place(tmp_path):
    path = tmp_path / "model.safetensors"
    scalar = {"dtype": "F32", "shape": [], "data_offsets": [4, 8]}
    path.write_bytes(made({"__metadata__": {"format": "pt"}, **ONE, "s": scalar}, b"12345678"))
    tensors = read_header(path)
    assert {name: (one.dtype, one.shape, one.bytes) for name, one in tensors.items()} == {
        "w": ("U8", (4,), 4),
        "s": ("F32", (), 4),
    }
    assert path.read_bytes()[tensors["w"].begin : tensors["w"].end] == b"1234"


_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.sampled_from([2**63, 2**64, 0.5, "U8", "F4", "BF16", "q"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
_ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["U8", "F32", "BF16", "F4", "X"]) | _VALUE,
        "shape": st.lists(st.integers(0, 4), max_size=3) | _VALUE,
        "data_offsets": st.tuples(st.integers(0, 8), st.integers(0, 16)).map(list) | _VALUE,
    },
)
_HEADER = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), _ENTRY | _VALUE, max_size=3)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(header=_HEADER.map(lambda one: json.dumps(one).encode()) | st.binary(max_size=80), data=st.binary(max_size=16))
def test_nothing_is_accepted_that_the_library_refuses(header: bytes, data: bytes):
    content = made(header, data)
    try:
        tensors = parse_header(header, len(content), source="fuzz")
    except IntegrityError as error:
        assert "\n" not in error.message  # noqa: PT017  any other exception fails the test
        return
    library = deserialize(content)  # type: ignore[no-untyped-call]
    assert {name for name, _ in library} == tensors.keys()
