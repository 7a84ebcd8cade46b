"""Does one served model say the same of a text as another? Perplexity, KL divergence and likeliest token, paired.

Both score the same tokens of the same passages. The unit of the intervals is a passage, because the tokens of a passage
depend on one another: a percentile bootstrap (Efron 1979) draws passages with replacement, each with what both models
said of it. Of few passages its interval is too narrow, so it is expanded by Student's distribution (Hesterberg 2015,
"What Teachers Should Know About the Bootstrap", expanded percentile interval).

The engine reports the likeliest candidates of a place only. The KL divergence of two distributions in which all others
count as one is a lower bound of the true one (data processing inequality; Cover and Thomas, Elements of Information
Theory, 2.8). A KL divergence is never negative, so that chance alone makes it positive. Each side is therefore asked
twice, and what the two answers of one side differ by is subtracted before the interval is looked at; so it is with the
likeliest tokens.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist
from typing import Literal, TypeAlias

from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring.comparison import CONFIDENCE, student
from deckard_deploy.measuring.scores import Candidates, PassageScore, ServedScores

Verdict: TypeAlias = Literal["better", "worse", "different", "no difference seen"]
NO_DIFFERENCE: Verdict = "no difference seen"
RESAMPLES = 4000
_SEED = 20261130  # equal inputs give equal intervals
# The least share of all tokens that are no candidates: the log-probabilities are floats of 32 bits.
_LEAST_REST = 1e-6


@dataclass(frozen=True)
class Figure:
    """A figure with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """What two served models say of the same text; B against A.

    perplexity_ratio: B / A. kl: nats for each token, a lower bound; excess_kl: without what each side differs from
    itself by. same_greedy: share of the tokens with the same likeliest token; excess_greedy: the share with another,
    without what each side differs from itself by.
    """

    passages: int
    tokens: int
    perplexity_a: float
    perplexity_b: float
    perplexity_ratio: Figure
    kl: Figure
    excess_kl: Figure
    same_greedy: Figure
    excess_greedy: Figure

    @property
    def perplexity_verdict(self) -> Verdict:
        """The verdict on B: the interval must exclude 1."""
        if self.perplexity_ratio.low > 1:
            return "worse"
        return "better" if self.perplexity_ratio.high < 1 else NO_DIFFERENCE

    @property
    def kl_verdict(self) -> Verdict:
        """The verdict on the distributions: the interval must exclude 0."""
        return "different" if self.excess_kl.low > 0 else NO_DIFFERENCE

    @property
    def greedy_verdict(self) -> Verdict:
        """The verdict on the likeliest tokens: the interval must exclude 0."""
        return "different" if self.excess_greedy.low > 0 else NO_DIFFERENCE


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """The sums over the tokens of one passage, or of several."""

    tokens: float
    logprob_a: float
    logprob_b: float
    kl: float
    noise_kl: float
    other_greedy: float
    noise_greedy: float


def compare_scores(a: ServedScores, b: ServedScores) -> Fidelity:
    """Compare two sides. Raises BadInputError if their texts or their tokenizers differ."""
    _require_same_tokens(a, b)
    sums = [_sums(one, other) for one, other in zip(a.passages, b.passages, strict=True)]
    total = _total(sums)
    cut = int(tail(len(sums)) * RESAMPLES)
    draw = random.Random(_SEED)
    resampled = [_total(draw.choices(sums, k=len(sums))) for _ in range(RESAMPLES)]

    def figure(value: Callable[[_Sums], float]) -> Figure:
        values = sorted(value(each) for each in resampled)
        return Figure(value(total), values[cut], values[-1 - cut])

    return Fidelity(
        passages=len(sums),
        tokens=int(total.tokens),
        perplexity_a=exp(-total.logprob_a / total.tokens),
        perplexity_b=exp(-total.logprob_b / total.tokens),
        perplexity_ratio=figure(lambda each: exp((each.logprob_a - each.logprob_b) / each.tokens)),
        kl=figure(lambda each: each.kl / each.tokens),
        excess_kl=figure(lambda each: (each.kl - each.noise_kl) / each.tokens),
        same_greedy=figure(lambda each: 1 - each.other_greedy / each.tokens),
        excess_greedy=figure(lambda each: (each.other_greedy - each.noise_greedy) / each.tokens),
    )


def tail(passages: int) -> float:
    """Return the share of the resamples beyond each end of the interval."""
    width = student(CONFIDENCE, passages - 1) * sqrt(passages / (passages - 1))
    return NormalDist().cdf(-width)


def _require_same_tokens(a: ServedScores, b: ServedScores) -> None:
    if a.text_sha256 != b.text_sha256 or len(a.passages) != len(b.passages):
        raise BadInputError(
            f"{a.deployment} and {b.deployment} were asked for other texts",
            hint="the same --text, --characters and --passages for both",
        )
    for number, (one, other) in enumerate(zip(a.passages, b.passages, strict=True), 1):
        if one.token_ids != other.token_ids:
            raise BadInputError(
                f"{a.model} and {b.model} have different tokenizers: passage {number} has {len(one.token_ids)} tokens "
                f"of {a.model} and {len(other.token_ids)} of {b.model}, or others of the same number",
                hint="two forms of one model",
            )


def _sums(a: PassageScore, b: PassageScore) -> _Sums:
    return _Sums(
        tokens=len(a.logprobs),
        logprob_a=sum(a.logprobs),
        logprob_b=sum(b.logprobs),
        kl=passage_kl(a.candidates, b.candidates),
        noise_kl=(a.noise_kl + b.noise_kl) / 2,
        other_greedy=other_greedy(a.candidates, b.candidates),
        noise_greedy=(a.noise_greedy + b.noise_greedy) / 2,
    )


def _total(sums: Sequence[_Sums]) -> _Sums:
    return _Sums(
        tokens=sum(each.tokens for each in sums),
        logprob_a=sum(each.logprob_a for each in sums),
        logprob_b=sum(each.logprob_b for each in sums),
        kl=sum(each.kl for each in sums),
        noise_kl=sum(each.noise_kl for each in sums),
        other_greedy=sum(each.other_greedy for each in sums),
        noise_greedy=sum(each.noise_greedy for each in sums),
    )


def passage_kl(a: Sequence[Candidates], b: Sequence[Candidates]) -> float:
    """Return the sum of the KL divergences of A from B over the places of a passage, in nats; a lower bound."""
    return sum(place_kl(dict(one), dict(other)) for one, other in zip(a, b, strict=True))


def place_kl(a: Mapping[int, float], b: Mapping[int, float]) -> float:
    """Return the KL divergence of A from B over the candidates of both; all other tokens count as one."""
    if a == b:
        return 0.0
    common = a.keys() & b.keys()
    divergence = sum(exp(a[token]) * (a[token] - b[token]) for token in common)
    rest_a = max(1 - sum(exp(a[token]) for token in common), _LEAST_REST)
    rest_b = max(1 - sum(exp(b[token]) for token in common), _LEAST_REST)
    return max(divergence + rest_a * log(rest_a / rest_b), 0.0)


def other_greedy(a: Sequence[Candidates], b: Sequence[Candidates]) -> int:
    """Return the number of places at which the two have another likeliest token."""
    return sum(one[0][0] != other[0][0] for one, other in zip(a, b, strict=True))
