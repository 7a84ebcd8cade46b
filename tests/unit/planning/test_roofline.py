"""Ceilings against bytes counted by hand, and drafting against its closed forms."""

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.planning.memory.settings import cache_settings
from deckard_deploy.planning.roofline import (
    DraftingEstimate,
    Roofline,
    drafting_of,
    expert_bytes,
    kv_bytes_read,
    roofline_of,
    tokens_per_step,
    used_experts,
    weight_bytes_read,
)
from tests.support.sample_choices import choice

NEWEST = "engine=vllm-0.33.0"
E4B = DraftingEstimate(tokens=5, cost=0.186)
MTP = DraftingEstimate(tokens=4, cost=0.049)


def roofline(profile: str, *settings: str) -> Roofline:
    resolved = choice(profile, *settings)
    found = roofline_of(resolved, cache_settings(resolved))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # 29,286,727,680 parameters of linears, 10 copies of a full layer's keys, 4.5 bits each; the head in
        # BF16
        ("deckard-31b", int((29_286_727_680 + 10 * 5376 * 2048) * 0.5625) + 262_144 * 5376 * 2),
        ("deckard-e4b", int(4_027_842_560 * 0.5625) + 262_144 * 2560 * 2),
    ],
)
def test_weight_bytes_per_step(model: str, expected: int) -> None:
    assert weight_bytes_read(library.model(model)) == expected


@pytest.mark.parametrize(
    ("settings", "head"),
    [
        ([], 262_144 * 5376 * 2),
        (["lm_head=fp8", NEWEST], 262_144 * (5376 + 4)),  # a scale in float32 for each row
        (["lm_head=nvfp4", NEWEST], int(262_144 * 5376 * 0.5625)),
    ],
)
def test_quantized_head_is_read_in_place_of_bf16(settings: list[str], head: int) -> None:
    linears = int((29_286_727_680 + 10 * 5376 * 2048) * 0.5625)
    assert roofline("spark", *settings).weights == linears + head


def test_quantized_head_raises_the_ceiling_of_a_spark() -> None:
    rates = [
        roofline("spark", *settings).tokens_per_s(1, 0)
        for settings in ([], ["lm_head=fp8", NEWEST], ["lm_head=nvfp4", NEWEST])
    ]
    assert [round(rate, 1) for rate in rates] == [14.1, 15.2, 15.8]


def test_drafter_costs_more_of_a_faster_target() -> None:
    plain, quantized = (
        drafting_of(choice("spark", "drafter=mtp", *more)) for more in ([], ["lm_head=nvfp4", NEWEST])
    )
    assert plain is not None
    assert quantized is not None
    assert 1.05 < quantized.cost / plain.cost < 1.2


def test_experts_are_read_as_tokens_use_them() -> None:
    shape = library.model("gemma-4-26b-a4b-it").architecture
    assert used_experts(shape, 1) == pytest.approx(8 / 128)
    assert used_experts(shape, 4) == pytest.approx(1 - (120 / 128) ** 4)
    assert used_experts(shape, 1000) == pytest.approx(1)
    assert used_experts(library.model("deckard-31b").architecture, 4) == 0


def test_mixture_of_experts_reads_its_active_part() -> None:
    model = library.model("gemma-4-26b-a4b-it")
    # 30 layers of 128 experts, each three matrices of 2,816 x 704, in BF16
    assert expert_bytes(model) == 30 * 128 * 3 * 2816 * 704 * 2
    derived = model.model_copy(update={"component_bytes": {}})
    assert expert_bytes(derived) == expert_bytes(model)
    assert weight_bytes_read(derived) == pytest.approx(weight_bytes_read(model), rel=0.01)


@pytest.mark.parametrize(
    ("model", "tokens_per_s"),
    [
        # Measured on a Spark for one sequence (docs/planning.md); the ceiling has to be above, by less than 2.
        ("gemma-4-31b-it", 3.7),
        ("gemma-4-31b-it-nvfp4", 6.9),
        ("gemma-4-26b-a4b-it", 23.9),
        ("gemma-4-26b-a4b-it-nvfp4", 29.5),
    ],
)
def test_ceiling_is_above_what_a_spark_reached(model: str, tokens_per_s: float) -> None:
    ceiling = roofline("spark", f"model={model}").tokens_per_s(1, 1024)
    assert 1 < ceiling / tokens_per_s < 2


def test_svdquant_reads_rank_32_residual() -> None:
    dimensions = 7_651_840 + 10 * (5376 + 2048)  # and of the copied keys
    more = weight_bytes_read(library.model("deckard-31b-svdquant")) - weight_bytes_read(
        library.model("deckard-31b")
    )
    assert more == dimensions * 32 * 2


def test_sliding_layer_reads_only_its_window() -> None:
    shape = library.model("deckard-31b").architecture
    assert kv_bytes_read(shape, 2, 1024) == 1024 * (81_920 + 819_200)
    assert kv_bytes_read(shape, 2, 65_536) == 65_536 * 81_920 + 1024 * 819_200
    assert kv_bytes_read(shape, 1, 65_536) * 2 == kv_bytes_read(shape, 2, 65_536)


@pytest.mark.parametrize(
    ("profile", "expected"), [("spark", 14.1), ("rtx-5090", 92.6), ("b200", 413), ("h200", 248)]
)
def test_ceiling_without_context(profile: str, expected: float) -> None:
    assert roofline(profile).tokens_per_s(1, 0) == pytest.approx(expected, rel=2e-3)


def test_more_sequences_raise_total_speed() -> None:
    found = roofline("spark")
    one, four = found.tokens_per_s(1, 8192), found.tokens_per_s(4, 8192)
    assert one < four < 4 * one
    assert found.tokens_per_s(1, 65_536) < one


def test_two_ranks_have_twice_the_bandwidth() -> None:
    one, two = roofline("b200"), roofline("b200", "tensor-parallel-size=2")
    assert two.tokens_per_s(1, 0) == 2 * one.tokens_per_s(1, 0)


def test_efficiency_is_measured_or_none() -> None:
    measured = roofline("spark").efficiency
    assert measured is not None
    assert measured.value == 0.78
    assert measured.source
    assert roofline("b200").efficiency is None
    unknown = choice("cpu")
    assert roofline_of(unknown, cache_settings(unknown)) is None


@pytest.mark.parametrize("tokens", [1, 3, 7])
@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.9])
def test_accepted_follows_closed_form(acceptance: float, tokens: int) -> None:
    assert tokens_per_step(acceptance, tokens) == pytest.approx(
        (1 - acceptance ** (tokens + 1)) / (1 - acceptance)
    )
    assert tokens_per_step(1.0, tokens) == tokens + 1


@pytest.mark.parametrize(
    ("drafting", "expected"),
    [
        (E4B, {1: 0.19, 2: 0.29, 3: 0.37, 5: 0.49, 7: 0.57}),
        (MTP, {1: 0.05, 2: 0.09, 3: 0.13, 5: 0.20, 7: 0.25}),
    ],
)
def test_break_even(drafting: DraftingEstimate, expected: dict[int, float]) -> None:
    for tokens, acceptance in expected.items():
        found = drafting.break_even(tokens)
        assert found == pytest.approx(acceptance, abs=0.006)
        assert found is not None
        assert drafting.speedup(found, tokens) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("drafting", [E4B, MTP])
def test_share_at_break_even_is_cost(drafting: DraftingEstimate) -> None:
    even = drafting.break_even()
    assert even is not None
    assert drafting.share(even) == pytest.approx(drafting.cost, abs=1e-4)
    assert (drafting.share(0.0), drafting.share(1.0)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("drafting", "acceptance", "tokens", "speedup"),
    [(E4B, 0.5, 2, 1.27), (E4B, 0.7, 3, 1.62), (E4B, 0.8, 4, 1.93), (MTP, 0.5, 3, 1.64), (MTP, 0.7, 6, 2.37)],
)
def test_best_number_of_tokens(
    drafting: DraftingEstimate, acceptance: float, tokens: int, speedup: float
) -> None:
    assert drafting.best_tokens(acceptance) == tokens
    assert drafting.speedup(acceptance, tokens) == pytest.approx(speedup, abs=0.01)


def test_never_accepted_drafter_should_not_draft() -> None:
    assert E4B.best_tokens(0.0) == 0
    assert DraftingEstimate(tokens=1, cost=1.0).break_even() is None


def test_e4b_on_spark_is_below_break_even() -> None:
    drafting = drafting_of(choice("spark", "drafter=deckard-e4b"))
    measured = library.model("deckard-e4b").measured_speedup
    assert drafting is not None
    assert measured is not None
    assert drafting.cost == pytest.approx(0.186, abs=1e-3)
    even = drafting.break_even()
    assert even is not None
    assert drafting.implied_acceptance(measured.value) == pytest.approx(0.25, abs=0.01)
    assert drafting.implied_acceptance(measured.value) < even
    assert drafting_of(choice("spark")) is None
