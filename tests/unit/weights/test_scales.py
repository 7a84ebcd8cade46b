"""NaN block scales and the scales that no rule restores, found in files of any format."""

import json
import struct
from pathlib import Path

import pytest

from deckard_deploy.weights.checkpoint import Checkpoint
from deckard_deploy.weights.safetensors_header import read_header
from deckard_deploy.weights.scales import ScaleFault, ScaleRepair, find_repairs
from tests.support.malformed_safetensors import malformed_file

Raw = dict[str, tuple[str, list[int], bytes]]
ONE = struct.pack("<f", 1)
SOUND = bytes(range(1, 9))
LOST = b"\x77" * 8


def checkpoint(folder: Path, tensors: Raw) -> Checkpoint:
    header, position = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    path = folder / "model.safetensors"
    path.write_bytes(malformed_file(header, b"".join(data for _, _, data in tensors.values())))
    found = read_header(path)
    return Checkpoint(folder, {}, {}, "", found, dict.fromkeys(found, path))


def linear(codes: bytes, scales: bytes, weight: str = "weight") -> Raw:
    return {
        f"l.{weight}": ("U8", [len(scales), 8], codes),
        "l.weight_scale": ("F8_E4M3", [len(scales), 1], scales),
        "l.weight_scale_2": ("F32", [], ONE),
    }


def test_codes_decide_between_448_and_0(tmp_path: Path) -> None:
    codes = SOUND + SOUND + LOST + b"\xff" * 8 + LOST
    found = checkpoint(tmp_path, linear(codes, b"\x38\x7f\xff\x7f\x38"))
    (repair,) = find_repairs(found)
    assert isinstance(repair, ScaleRepair)
    begin = found.tensors["l.weight_scale"].begin
    assert repair.patches == {begin + 1: 0x7E, begin + 2: 0x00, begin + 3: 0x00}
    assert repair.zeroed == 2


def test_sound_scales_need_nothing(tmp_path: Path) -> None:
    assert list(find_repairs(checkpoint(tmp_path, linear(SOUND + LOST, b"\x00\x7e")))) == []


FAULTS: dict[str, Raw] = {
    "every scale is NaN": linear(SOUND, b"\x7f"),
    "a rule is known for ModelOpt's NVFP4 alone": linear(SOUND + SOUND, b"\x38\x7f", "weight_packed"),
    "NaN or infinite": {"l.scales": ("F16", [2], b"\x00\x3c\x00\x7c")},
    "NaN or infinite, ": {"l.weight_scale": ("BF16", [1], b"\xc0\xff")},
    "zero": {"l.weight_global_scale": ("F32", [1], bytes(4))},
    "zero, ": {"l.pre_quant_scale": ("BF16", [2], b"\x80\x3f\x00\x80")},
}


@pytest.mark.parametrize("cause", FAULTS)
def test_scale_that_nothing_restores_is_a_fault(tmp_path: Path, cause: str) -> None:
    (fault,) = find_repairs(checkpoint(tmp_path, FAULTS[cause]))
    assert isinstance(fault, ScaleFault)
    assert cause in fault.cause


def test_zero_that_is_only_multiplied_with_is_no_fault(tmp_path: Path) -> None:
    assert list(find_repairs(checkpoint(tmp_path, {"l.scales": ("F16", [1], bytes(2))}))) == []


def test_names_of_faults_are_printable(tmp_path: Path) -> None:
    name = json.loads('"l\\u00e9.input_scale"')
    (fault,) = find_repairs(checkpoint(tmp_path, {name: ("F32", [], bytes(4))}))
    assert fault.tensor.isprintable()
