"""Does the drafter fit? A few completions after the start, and what the engine's own counters say of the drafts.

A drafter that does not fit its target costs speed and never changes an answer: the target checks every token. Public
figures are for other targets, and an abliterated one shifts the hidden states that MTP drafts from, so it is measured
at every start.
"""

from dataclasses import dataclass
from enum import StrEnum

from deckard_deploy.errors import NetworkError
from deckard_deploy.measuring.metrics import SpeculativeDecoding, metrics_url, scrape, speculative_decoding
from deckard_deploy.system.http import NO_ACCESS, Access, session

# Below it the drafter is off: what MTP costs on a Spark (planning/roofline.py: 0.94 of 19.35 GB read a token), and far
# below the 11 % of the worst misfit that was published (an abliterated target, promzeus).
FLOOR = 0.05
# A position is worth its draft from here on. A choice: 4 tokens are the knee in github club-3090, with 0.57 of the
# drafts accepted up to the fourth; more were a loss.
WORTHWHILE = 0.5
ENOUGH_DRAFTS = 8  # with fewer, one lucky draft moves a share by more than a tenth
MAX_TOKENS = 96
TIMEOUT_S = (1.0, 120.0)  # to connect, of silence
# Code, prose and data, which are accepted very differently (59 tok/s for JSON and 27 for code on one Spark, AEON-7).
QUESTIONS = (
    "Write a Python function that counts the words of a text, with a docstring.",
    "Explain in one paragraph why the sky is blue, and count the reasons.",
    "Give the planets as JSON, with the name, a count of moons and the diameter in km.",
)


class Advice(StrEnum):
    """What to do with the drafter."""

    KEEP = "keep"
    LOWER = "draft fewer tokens"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    """The advice; `tokens`: how many to draft, 0 when off. `detail`: the figures in words."""

    advice: Advice
    tokens: int
    detail: str


def judge(measured: SpeculativeDecoding, tokens: int) -> Verdict:
    """Pure. `tokens`: how many are drafted now.

    By position the share of all drafts whose tokens were accepted up to there: the last one that reaches WORTHWHILE is
    the last worth drafting. At least one is kept as long as the rate over all tokens is above FLOOR.
    """
    shares, rate = measured.acceptance_by_position, measured.acceptance_rate
    if rate is None or measured.drafts < ENOUGH_DRAFTS:
        return Verdict(Advice.UNKNOWN, tokens, f"only {measured.drafts:g} drafts were made")
    by_position = ", ".join(f"{share:.0%}" for share in shares)
    detail = f"{rate:.0%} of {measured.draft_tokens:g} drafted tokens accepted; by position {by_position}"
    if rate < FLOOR:
        return Verdict(Advice.OFF, 0, detail)
    worth = max(1, next((number for number, share in enumerate(shares) if share < WORTHWHILE), len(shares)))
    if worth >= tokens:
        return Verdict(Advice.KEEP, tokens, detail)
    return Verdict(Advice.LOWER, worth, detail)


def measure(base_url: str, served_name: str, access: Access = NO_ACCESS) -> SpeculativeDecoding:
    """Ask QUESTIONS as clients do, at the server's own sampling, and read what was drafted meanwhile.

    The endpoint has answered before: its kernels are compiled. Raises NetworkError when it does not answer, or has no
    such counters.
    """
    url = metrics_url(base_url)
    before = scrape(url, access)
    for question in QUESTIONS:
        _ask(base_url, served_name, question, access)
    found = speculative_decoding(scrape(url, access), since=before)
    if found is None:
        raise NetworkError(f"{url} has no counters of speculative decoding", hint="deckard-deploy logs")
    return found


def _ask(base_url: str, served_name: str, question: str, access: Access) -> None:
    import requests  # noqa: PLC0415  heavy

    body = {
        "model": served_name,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": MAX_TOKENS,
    }
    with session(access) as asking:
        try:
            answer = asking.post(
                f"{base_url}/chat/completions", json=body, timeout=TIMEOUT_S, allow_redirects=False
            )
        except requests.RequestException as error:
            raise NetworkError(f"{base_url}: {type(error).__name__}", hint="deckard-deploy status") from error
    if answer.status_code != 200:
        raise NetworkError(f"{base_url} answered HTTP {answer.status_code}", hint="deckard-deploy status")
