"""Does the drafter fit its target? A few completions after the start, and the engine's own counters.

A drafter that does not fit costs speed but never changes an answer, because the target checks every token.
Public figures are for other targets, and an abliterated target shifts the hidden states that MTP drafts from.
So acceptance is measured at every start.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import requests

from deckard_deploy.errors import NetworkError
from deckard_deploy.measuring.metrics import SpeculativeDecoding, metrics_url, scrape, speculative_decoding
from deckard_deploy.system.http import ANONYMOUS, EndpointCredentials, session

# Below this rate over all tokens the drafter goes off. It is the cost of MTP on a Spark
# (planning/roofline.py: 0.94 of 19.35 GB read a token), and far below the 11 % of the worst published misfit
# (an abliterated target, promzeus).
MIN_ACCEPTANCE = 0.05
# From this share on a position is worth drafting. A choice: 4 tokens are the knee in github club-3090, with
# 0.57 of the drafts accepted up to the fourth; more were a loss.
MIN_POSITION_SHARE = 0.5
MIN_DRAFTS = 8  # with fewer, one lucky draft moves a share by more than a tenth
MAX_TOKENS = 96
TIMEOUT_S = (1.0, 120.0)  # to connect, between two bytes
# Code, prose and data: acceptance differs widely between them (59 tok/s for JSON and 27 for code on one
# Spark, AEON-7).
PROMPTS = (
    "Write a Python function that counts the words of a text, with a docstring.",
    "Explain in one paragraph why the sky is blue, and count the reasons.",
    "Give the planets as JSON, with the name, a count of moons and the diameter in km.",
)


class Advice(StrEnum):
    """The advice on the drafter."""

    KEEP = "keep"
    LOWER = "draft fewer tokens"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class DrafterVerdict:
    """The advice and its reason. tokens: how many to draft, 0 when off. detail: the figures in words."""

    advice: Advice
    tokens: int
    detail: str


def advise(measured: SpeculativeDecoding, tokens: int) -> DrafterVerdict:
    """Return the advice for a drafter that drafts `tokens` now.

    The share of a position is that of the drafts whose tokens were accepted up to there. The last position
    before the first share below MIN_POSITION_SHARE is the last worth drafting. At least one token is kept while the
    rate over all tokens is at least FLOOR.
    """
    shares = measured.acceptance_by_position
    rate = measured.acceptance_rate
    if rate is None or measured.drafts < MIN_DRAFTS:
        return DrafterVerdict(Advice.UNKNOWN, tokens, f"only {measured.drafts:g} drafts were made")
    by_position = ", ".join(f"{share:.0%}" for share in shares)
    detail = f"{rate:.0%} of {measured.draft_tokens:g} drafted tokens accepted; by position {by_position}"
    if rate < MIN_ACCEPTANCE:
        return DrafterVerdict(Advice.OFF, 0, detail)
    worthwhile = 0
    for share in shares:
        if share < MIN_POSITION_SHARE:
            break
        worthwhile += 1
    worthwhile = max(1, worthwhile)
    if worthwhile >= tokens:
        return DrafterVerdict(Advice.KEEP, tokens, detail)
    return DrafterVerdict(Advice.LOWER, worthwhile, detail)


def measure(base_url: str, served_name: str, access: EndpointCredentials = ANONYMOUS) -> SpeculativeDecoding:
    """Send PROMPTS with the server's own sampling, and return the increase of the drafter's counters.

    The endpoint has answered before, so its kernels are compiled. Raises NetworkError when the endpoint does
    not answer, or has no such counters.
    """
    url = metrics_url(base_url)
    before = scrape(url, access)
    for prompt in PROMPTS:
        complete(base_url, user_request(served_name, prompt, MAX_TOKENS), access)
    found = speculative_decoding(scrape(url, access), since=before)
    if found is None:
        raise NetworkError(f"{url} has no counters of speculative decoding", hint="deckard-deploy logs")
    return found


def user_request(served_name: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    """Return the body of a chat request with one message."""
    return {
        "model": served_name,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
    }


def complete(base_url: str, body: dict[str, Any], access: EndpointCredentials) -> requests.Response:
    """Return the answer to a chat request. Raises NetworkError for another status than 200 too."""
    with session(access) as client:
        try:
            response = client.post(
                f"{base_url}/chat/completions", json=body, timeout=TIMEOUT_S, allow_redirects=False
            )
        except requests.RequestException as error:
            raise NetworkError(f"{base_url}: {type(error).__name__}", hint="deckard-deploy status") from error
    if response.status_code != 200:
        raise NetworkError(f"{base_url} answered HTTP {response.status_code}", hint="deckard-deploy status")
    return response
