"""The comparison of two served models: its bounds, its verdicts, and its false alarms."""

import math
import random
from collections.abc import Callable

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring.fidelity import NO_DIFFERENCE, compare_scores, other_greedy, place_kl, tail
from deckard_deploy.measuring.scores import Candidates, PassageScore, ServedScores

TOKENS = 40
VOCABULARY = 12
Distribution = dict[int, float]


def distribution(draw: random.Random) -> Distribution:
    weights = [math.exp(draw.gauss(0, 1.5)) for _ in range(VOCABULARY)]
    return {token: math.log(weight / sum(weights)) for token, weight in enumerate(weights)}


def noised(base: Distribution, draw: random.Random, sigma: float) -> Distribution:
    weights = {token: math.exp(value + draw.gauss(0, sigma)) for token, value in base.items()}
    total = sum(weights.values())
    return {token: math.log(weight / total) for token, weight in weights.items()}


def candidates(full: Distribution, token: int, top: int) -> Candidates:
    """What an engine reports: the likeliest tokens, and the token of the text."""
    likeliest = sorted(full.items(), key=lambda item: (-item[1], item[0]))
    found = likeliest[:top]
    return tuple(found if token in dict(found) else [*found, (token, full[token])])


def served(
    passages: list[PassageScore], *, model: str = "m", text: str = "0" * 64, speeds: tuple[float, ...] = ()
) -> ServedScores:
    return ServedScores(
        deployment=model,
        model=model,
        engine="e",
        plan="p",
        weight_bytes=None,
        text_sha256=text,
        top=5,
        speeds=speeds,
        passages=tuple(passages),
    )


def passage(places: list[tuple[int, Distribution]], *, noise_kl: float = 0.0) -> PassageScore:
    return PassageScore(
        token_ids=(0, *(token for token, _ in places)),
        logprobs=tuple(full[token] for token, full in places),
        candidates=tuple(candidates(full, token, 5) for token, full in places),
        noise_kl=noise_kl,
        noise_greedy=0,
    )


def two_sides(
    seed: int, change: Callable[[Distribution, random.Random], Distribution], passages: int = 20
) -> tuple[ServedScores, ServedScores]:
    """A text drawn from the distributions of A; B has each of them changed."""
    draw = random.Random(seed)
    ours, theirs = [], []
    for _ in range(passages):
        places = []
        for _ in range(TOKENS):
            full = distribution(draw)
            token = draw.choices(list(full), [math.exp(value) for value in full.values()])[0]
            places.append((token, full))
        ours.append(passage(places))
        theirs.append(passage([(token, change(full, draw)) for token, full in places]))
    return served(ours), served(theirs, model="n")


def test_side_against_itself_is_exactly_equal() -> None:
    a, b = two_sides(1, lambda full, _: full)
    found = compare_scores(a, b)
    assert (found.perplexity_ratio.low, found.perplexity_ratio.value, found.perplexity_ratio.high) == (
        1,
        1,
        1,
    )
    assert (found.kl.value, found.kl.high, found.same_greedy.value) == (0, 0, 1)
    verdicts = {found.perplexity_verdict, found.kl_verdict, found.greedy_verdict}
    assert verdicts == {NO_DIFFERENCE}
    assert (found.passages, found.tokens) == (20, 20 * TOKENS)


def test_noised_side_is_seen_and_worse() -> None:
    """The text is of A's own distributions, so whatever differs from them has a higher perplexity."""
    found = compare_scores(*two_sides(2, lambda full, draw: noised(full, draw, 1.0)))
    assert found.perplexity_verdict == "worse"
    assert found.kl_verdict == "different"
    assert found.greedy_verdict == "different"
    better = compare_scores(*reversed(two_sides(2, lambda full, draw: noised(full, draw, 1.0))))
    assert better.perplexity_verdict == "better"


def test_noise_that_each_side_has_too_is_not_seen() -> None:
    """An engine that answers a request otherwise each time has a KL divergence above zero from itself."""
    a, b = two_sides(3, lambda full, draw: noised(full, draw, 0.05))
    seen = compare_scores(a, b)
    assert seen.kl_verdict == "different"
    as_noisy = [each.model_copy(update={"noise_kl": seen.kl.value * TOKENS}) for each in a.passages]
    other = [each.model_copy(update={"noise_kl": seen.kl.value * TOKENS}) for each in b.passages]
    found = compare_scores(served(as_noisy), served(other))
    assert found.kl_verdict == NO_DIFFERENCE
    assert found.kl == seen.kl


def test_false_alarms_of_the_perplexity_are_rare() -> None:
    """Two sides with equal means: at 99 % a few in a hundred, with 20 passages each."""
    alarms = 0
    for seed in range(40):
        draw = random.Random(seed)
        ours: list[PassageScore] = []
        theirs: list[PassageScore] = []
        for _ in range(20):
            shared = [distribution(draw) for _ in range(8)]
            tokens = [draw.randrange(VOCABULARY) for _ in shared]
            for side in (ours, theirs):
                side.append(
                    passage(
                        [(token, noised(full, draw, 0.2)) for token, full in zip(tokens, shared, strict=True)]
                    )
                )
        alarms += compare_scores(served(ours), served(theirs)).perplexity_verdict != NO_DIFFERENCE
    assert alarms <= 2


def test_interval_of_few_passages_is_expanded() -> None:
    """Without it 11 of 200 comparisons of 10 passages raised a false alarm, and 2 were to be expected."""
    assert tail(10) == pytest.approx(0.0003, rel=0.1)
    assert tail(10) < tail(64) < tail(1000) < 0.005
    assert tail(1000) == pytest.approx(0.005, rel=0.03)


def test_kl_of_candidates_is_a_lower_bound() -> None:
    draw = random.Random(4)
    for _ in range(300):
        a = distribution(draw)
        b = noised(a, draw, draw.choice([0.01, 0.3, 2.0]))
        exact = sum(math.exp(a[token]) * (a[token] - b[token]) for token in a)
        token = draw.randrange(VOCABULARY)
        bound = place_kl(dict(candidates(a, token, 5)), dict(candidates(b, token, 5)))
        assert 0 <= bound <= exact + 1e-9
        assert place_kl(a, b) == pytest.approx(exact, abs=1e-4)


def test_kl_survives_impossible_tokens() -> None:
    assert math.isfinite(place_kl({1: 0.0, 2: -9999.0}, {1: -9999.0, 2: 0.0}))
    assert place_kl({1: 0.0}, {1: 0.0}) == 0


def test_likeliest_token_decides_agreement() -> None:
    assert other_greedy((((1, -0.1), (2, -3.0)),), (((1, -0.4), (2, -1.1)),)) == 0
    assert other_greedy((((1, -0.1), (2, -3.0)),), (((2, -0.4), (1, -1.1)),)) == 1


def test_other_tokenizer_is_refused_by_name() -> None:
    a, _ = two_sides(5, lambda full, _: full)
    first = a.passages[0]
    other = first.model_copy(update={"token_ids": (9, *first.token_ids[1:])})
    with pytest.raises(BadInputError, match="m and n have different tokenizers: passage 1 has 41 tokens"):
        compare_scores(a, served([other, *a.passages[1:]], model="n"))


def test_other_text_is_refused() -> None:
    a, _ = two_sides(6, lambda full, _: full)
    with pytest.raises(BadInputError, match="asked for other texts"):
        compare_scores(a, served(list(a.passages), text="1" * 64))
