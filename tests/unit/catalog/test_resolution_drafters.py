"""A drafter is selected by name or method, together with an engine that can draft with it."""

import json

import pytest

from deckard_deploy.catalog import library, overrides
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.planning.roofline import drafting_of


def resolved(*settings: str, profile: str = "spark") -> Resolved:
    deployment = overrides.with_settings(overrides.read_deployment(None), settings)
    return resolve(deployment, profile=library.profile(profile))


def speculative(found: Resolved) -> dict[str, object]:
    config = build_plan(found).option("speculative-config")
    assert config is not None
    return dict(json.loads(config))


def test_method_selects_drafter_and_engine() -> None:
    found = resolved("drafter=mtp", "engine=vllm-0.32.0")
    assert found.drafter is not None
    assert found.drafter.name == "gemma-4-31b-assistant"
    assert resolved("drafter=mtp").engine.name == "vllm-0.33.0"
    assert resolved("drafter=deckard-e4b").engine.name == "vllm-0.19.1"
    assert resolved("drafter=draft_model").engine.name == "vllm-0.19.1"


def test_speculative_config_of_each_method() -> None:
    assert speculative(resolved("drafter=mtp")) == {
        "method": "mtp",
        "model": "/models/gemma-4-31b-assistant",
        "num_speculative_tokens": 4,
    }
    assert speculative(resolved("drafter=ngram")) == {
        "method": "ngram",
        "num_speculative_tokens": 4,
        "prompt_lookup_max": 3,
        "prompt_lookup_min": 2,
    }
    dflash = resolved("drafter=dflash")
    # With a multimodal target vLLM refuses FLASH_ATTN on a Spark.
    assert "attention_backend" not in speculative(dflash)
    assert dflash.serve["attention-backend"] == "TRITON_ATTN"


def test_drafter_tokens_override_default() -> None:
    assert speculative(resolved("drafter=mtp", "drafter_tokens=2"))["num_speculative_tokens"] == 2


def test_drafter_weights_are_mounted() -> None:
    assert "/models/gemma-4-31b-assistant" in {
        mount.target for mount in build_plan(resolved("drafter=mtp")).mounts
    }
    assert "/models/ngram" not in {mount.target for mount in build_plan(resolved("drafter=ngram")).mounts}


def test_draft_cost_by_method() -> None:
    mtp, dflash, ngram = (drafting_of(resolved(f"drafter={name}")) for name in ("mtp", "dflash", "ngram"))
    assert mtp
    assert dflash
    assert ngram
    assert mtp.cost == pytest.approx(0.94e9 / 19.35e9, rel=0.02)
    # One pass for the whole block.
    assert dflash.cost * dflash.tokens == pytest.approx(3.07e9 / 19.35e9, rel=0.02)
    assert ngram.cost == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["drafter=mtp", "engine=vllm-0.19.1"], "vllm-0.19.1 cannot draft with gemma-4-31b-assistant"),
        (["drafter=mtq"], "no drafter named 'mtq'"),
        (["drafter_tokens=2", "engine=vllm-0.19.1"], "drafter_tokens is set without a drafter"),
        (["drafter=mtp", "drafter_tokens=17"], "less than or equal to 16"),
        (["drafter=deckard-e4b", "engine=vllm-0.32.0"], "vllm-0.32.0 cannot draft with deckard-e4b"),
    ],
)
def test_unusable_drafters_raise_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        resolved(*settings)
    assert message in caught.value.message


def test_other_token_count_drops_measured_speedup() -> None:
    """With one token MTP cannot be 2.35 times as fast, however many are accepted."""
    default, same, fewer = (
        resolved(*settings).drafter
        for settings in (
            ["drafter=mtp"],
            ["drafter=mtp", "drafter_tokens=4"],
            ["drafter=mtp", "drafter_tokens=1"],
        )
    )
    assert default
    assert default.measured_speedup
    assert same == default
    assert fewer
    assert fewer.measured_speedup is None


@pytest.mark.parametrize(
    ("settings", "engine", "drafter"),
    [
        ((), "vllm-0.33.0", "gemma-4-31b-assistant"),
        (("drafter=none",), "vllm-0.33.0", None),
        (("engine=vllm-0.32.0",), "vllm-0.32.0", "gemma-4-31b-assistant"),
        (("engine=vllm-0.19.1",), "vllm-0.19.1", None),
        (("drafter=deckard-e4b",), "vllm-0.19.1", "deckard-e4b"),
        (("model=tiny-gemma4",), "vllm-0.33.0", None),
        (('speculative-config={"method": "ngram"}',), "vllm-0.33.0", None),
    ],
)
def test_default_drafter_fits_the_rest(settings: tuple[str, ...], engine: str, drafter: str | None) -> None:
    found = resolved(*settings)
    assert (found.engine.name, found.drafter and found.drafter.name) == (engine, drafter)


def test_default_drafter_takes_a_number_of_tokens() -> None:
    drafter = resolved("drafter_tokens=2").drafter
    assert drafter
    assert drafter.speculative
    assert drafter.speculative.num_speculative_tokens == 2


def test_profile_without_memory_for_a_drafter_has_none() -> None:
    assert resolved(profile="rtx-5090").drafter is None
