"""The record of a quantization and its model card."""

from deckard_deploy.catalog import library
from deckard_deploy.quantizing.calibration import CalibrationData
from deckard_deploy.quantizing.report import Made, as_json, card


def made(name: str) -> Made:
    errors = {f"layers.{number}.q_proj": number / 100 for number in range(1, 13)}
    return Made(
        source={"name": "mine\x1b[2J", "repo": "owner/mine", "commit": "ab" * 20, "config_sha256": "0" * 64},
        recipe=library.recipe("awq-full"),
        data=CalibrationData(name=name, sha256="c" * 64, available=3000, texts=({"text": "x"},)),
        result={
            "texts": 2048,
            "tokens": 99,
            "errors": errors,
            "device": "NVIDIA H200",
            "peak_gpu_bytes": 7,
            "seconds": {"load": 10.0, "calibrate": 3590.0},
            "torch": "2.13.0",
        },
        versions={"deckard-deploy": "1", "modelopt": "0.47.0"},
        bytes_before=62_000_000_000,
        bytes_after=20_500_000_000,
        repaired={"found": 0, "set_to_zero": 0},
    )


def test_report_has_every_choice():
    found = as_json(made("texts.jsonl"))
    assert found["recipe"]["alpha_step"] == 0.1
    assert found["calibration"]["of"] == 3000
    assert len(found["relative_error_of_weights"]) == 12
    assert found["versions"] == {"deckard-deploy": "1", "modelopt": "0.47.0", "torch": "2.13.0"}


def test_card_names_recipe_data_size_and_the_largest_errors():
    text = card("mine-nvfp4", made("texts.jsonl"))
    for row in (
        "| method | awq_full |",
        "| alpha step | 0.1 |",
        "| calibration | texts.jsonl, 2048 of 3000 texts, 99 tokens |",
        "| size | 62,000,000,000 bytes before, 20,500,000,000 now |",
        "| time | 60:00 on NVIDIA H200 |",
        "| `layers.12.q_proj` | 0.1200 |",
    ):
        assert row in text
    assert "layers.2.q_proj" not in text
    assert "rank" not in text
    assert "\x1b" not in text
    assert "rehearsals" not in text


def test_card_of_a_rehearsal_says_so():
    assert "do not publish" in card("mine", made("builtin"))
