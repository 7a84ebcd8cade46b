"""lm_head is quantized at load only where this project's plugin can, and never unless asked for."""

import pytest

from deckard_deploy.catalog import library, overrides
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.errors import BadInputError
from tests.support.sample_choices import choice


def resolved(*settings: str, profile: str = "spark", compat: str | None = None) -> Resolved:
    deployment = overrides.with_settings(overrides.read_deployment(None), settings)
    compatibility = library.compatibility(compat) if compat else None
    return resolve(deployment, profile=library.profile(profile), compatibility=compatibility)


@pytest.mark.parametrize("profile", ["spark", "h200", "rtx-5090", "cpu"])
def test_lm_head_is_as_in_checkpoint_by_default(profile: str) -> None:
    assert choice(profile).lm_head is None


@pytest.mark.parametrize("settings", [["drafter=none"], ["drafter=mtp"], ["drafter=ngram"]])
def test_lm_head_goes_with_drafters_that_do_not_read_it(settings: list[str]) -> None:
    assert resolved("lm_head=fp8", *settings).lm_head == "fp8"


@pytest.mark.parametrize(
    ("settings", "profile", "words"),
    [
        (
            ["engine=vllm-0.19.1", "drafter=none"],
            "spark",
            r"vllm-0.19.1 has no plugin; these have: .*vllm-0.33.0",
        ),
        (["engine=vllm-0.19.1-cpu"], "cpu", "vllm-0.19.1-cpu has no plugin"),
        (["drafter=dflash"], "spark", "the drafter by dflash reads the target's"),
        (["drafter=eagle3"], "spark", "the drafter by eagle3 reads the target's"),
        (["enable-lora=true"], "spark", "--enable-lora may change it"),
        (
            ["pipeline-parallel-size=2", "drafter=none"],
            "h200",
            "with --pipeline-parallel-size only the last rank",
        ),
        (["runner=pooling", "drafter=none"], "spark", "an engine of vectors does not use it"),
    ],
)
def test_lm_head_is_refused_with_the_reason(settings: list[str], profile: str, words: str) -> None:
    resolved(*settings, profile=profile)  # without lm_head it is accepted
    with pytest.raises(BadInputError, match=f"^lm_head nvfp4: {words}"):
        resolved("lm_head=nvfp4", *settings, profile=profile)


def test_line_from_elsewhere_has_no_plugin() -> None:
    with pytest.raises(BadInputError, match="lm_head fp8: a line of --compat"):
        resolved("lm_head=fp8", compat="seed")


def test_other_format_is_refused() -> None:
    with pytest.raises(BadInputError, match="'fp8' or 'nvfp4'"):
        resolved("lm_head=int4")
