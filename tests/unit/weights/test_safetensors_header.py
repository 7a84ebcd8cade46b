import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from deckard_deploy.errors import IntegrityError
from deckard_deploy.weights.safetensors_header import parse_header, read_header
from deckard_deploy.weights.strict_json import read_object
from tests.support.malformed_safetensors import MALFORMED, ONE, STRICTER, malformed_file


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_malformed_file_is_one_line_with_its_path(tmp_path, content):
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
def test_error_names_the_wrong_content(tmp_path, case, word):
    path = tmp_path / "model.safetensors"
    path.write_bytes(MALFORMED[case])
    with pytest.raises(IntegrityError, match=word):
        read_header(path)


def test_hostile_shape_is_refused_quickly():
    """The product of the sizes has millions of bits, and takes seconds to compute."""
    header = MALFORMED["shape of 40,000 large sizes"]
    before = time.process_time()
    with pytest.raises(IntegrityError, match="does not fill"):
        parse_header(header[8:-4], len(header), source="it")
    assert time.process_time() - before < 2


def test_reader_refuses_devices():
    with pytest.raises(IntegrityError, match="/dev/zero: not a regular file"):
        read_header(Path("/dev/zero"))
    with pytest.raises(IntegrityError, match="/dev/null: not a regular file"):
        read_object(Path("/dev/null"))


@pytest.mark.parametrize("case", sorted(MALFORMED.keys() - STRICTER))
def test_library_refuses_malformed_files_too(case):
    with pytest.raises((SafetensorError, OverflowError)):
        deserialize(MALFORMED[case])  # type: ignore[no-untyped-call]


def test_valid_file_gives_dtype_shape_and_offsets(tmp_path):
    path = tmp_path / "model.safetensors"
    scalar = {"dtype": "F32", "shape": [], "data_offsets": [4, 8]}
    path.write_bytes(malformed_file({"__metadata__": {"format": "pt"}, **ONE, "s": scalar}, b"12345678"))
    tensors = read_header(path)
    assert {name: (one.dtype, one.shape, one.bytes) for name, one in tensors.items()} == {
        "w": ("U8", (4,), 4),
        "s": ("F32", (), 4),
    }
    assert path.read_bytes()[tensors["w"].begin : tensors["w"].end] == b"1234"


_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.sampled_from([2**63, 2**64, 0.5, "U8", "F4", "BF16", "q"]),
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
@given(
    header=_HEADER.map(lambda one: json.dumps(one).encode()) | st.binary(max_size=80),
    data=st.binary(max_size=16),
)
def test_parser_accepts_nothing_the_library_refuses(header: bytes, data: bytes):
    content = malformed_file(header, data)
    try:
        tensors = parse_header(header, len(content), source="fuzz")
    except IntegrityError as error:
        assert "\n" not in error.message  # noqa: PT017  any other exception fails the test
        return
    library = deserialize(content)  # type: ignore[no-untyped-call]
    assert {name for name, _ in library} == tensors.keys()
