"""The scores that a served model gives to a text: log-probabilities of its tokens, passage by passage, in one file.

`format` grows when a reader of the old one would misread the new.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from deckard_deploy.errors import BadInputError, IntegrityError, NetworkError
from deckard_deploy.measuring.records import Measure, PositiveInt, RecordPart, Text
from deckard_deploy.system.files import UMASK_MODE, write_atomically

MAX_FILE = 512 << 20  # bytes: 64 passages of 500 tokens with 20 candidates have about 20 MB
MAX_TEXT = 64 << 20
_IMPOSSIBLE = -9999.0  # vLLM's for minus infinity (0.19.1 entrypoints/utils.py, clamp_prompt_logprobs)
_LONGEST_WORD = 100  # characters
LEAST_PASSAGES = 10  # a bootstrap of fewer passages tells too little of their spread
Logprob = Annotated[float, Field(le=0)]
Candidates = tuple[tuple[int, Logprob], ...]


class PassageScore(RecordPart):
    """One passage. Of the tokens after the first: the log-probability of each, and the candidates for its place.

    candidates: (token, log-probability), the likeliest first. noise_kl, noise_greedy: between two requests for the same
    passage, the sum of the KL divergences and the number of places with another likeliest token.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[Logprob, ...]
    candidates: tuple[Candidates, ...]
    noise_kl: float
    noise_greedy: int

    @model_validator(mode="after")
    def _require_places(self) -> "PassageScore":
        places = len(self.token_ids) - 1
        if places < 1 or len(self.logprobs) != places or len(self.candidates) != places:
            raise ValueError("a log-probability and candidates for each token after the first were expected")
        if not all(self.candidates):
            raise ValueError("a place without candidates")
        return self


class ServedScores(RecordPart):
    """The scores of one served model. speeds: tokens per second of single requests. weight_bytes: None if unknown."""

    format: Literal[1] = 1
    deployment: Text
    model: Text
    engine: Text
    plan: Text
    weight_bytes: int | None
    text_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    top: PositiveInt
    speeds: tuple[Measure, ...]
    passages: tuple[PassageScore, ...] = Field(min_length=LEAST_PASSAGES)


class PassageText(RecordPart):
    """The passages of a text, and the hash of them all."""

    passages: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The hash of the passages: two sides must have been asked for the same ones."""
        return hashlib.sha256(json.dumps(self.passages).encode()).hexdigest()


def read_passages(path: Path, *, characters: int, most: int) -> PassageText:
    """Split a text file into passages of about so many characters.

    Raises BadInputError for a file that is no text, and for a text that is too short.
    """
    try:
        if not path.is_file():
            raise BadInputError(f"{path} is not a file of text", hint="--text FILE")
        if path.stat().st_size > MAX_TEXT:
            raise BadInputError(f"{path} has more than {MAX_TEXT >> 20} MiB", hint="a part of it is enough")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is not text in UTF-8", hint="iconv -t UTF-8") from error
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from error
    passages = []
    for passage in _passages(text, characters):
        passages.append(passage)
        if len(passages) == most:
            break
    if len(passages) < LEAST_PASSAGES:
        raise BadInputError(
            f"{path} has {len(passages)} passages of {characters} characters, and {LEAST_PASSAGES} are needed",
            hint="a longer text, or fewer --characters",
        )
    return PassageText(passages=tuple(passages))


def _passages(text: str, characters: int) -> Iterator[str]:
    """Yield passages that end at a white space, if there is one soon. The last, shorter one is left out."""
    begin = 0
    while begin + characters <= len(text):
        end = begin + characters
        space = re.search(r"\s", text[end : end + _LONGEST_WORD])
        if space:
            end += space.start()
        passage = text[begin:end].strip()
        if passage:
            yield passage
        begin = end


def parse_answer(answer: Any) -> tuple[tuple[int, ...], tuple[float, ...], tuple[Candidates, ...]]:  # noqa: ANN401  any JSON
    """Return tokens, log-probabilities and candidates of an answer of /v1/completions with prompt_logprobs.

    vLLM 0.19.1 and 0.32.0, entrypoints/openai/completion/protocol.py: prompt_logprobs has one object for each token, by
    token id; the first is null. Raises NetworkError for any other answer.
    """
    try:
        choice = answer["choices"][0]
        tokens = tuple(int(token) for token in choice["prompt_token_ids"])
        places = choice["prompt_logprobs"][1:]
        logprobs, candidates = [], []
        for token, place in zip(tokens[1:], places, strict=True):
            known = {int(number): _logprob(entry) for number, entry in place.items()}
            logprobs.append(known[token])
            candidates.append(tuple(sorted(known.items(), key=lambda item: (-item[1], item[0]))))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise NetworkError(
            f"the engine answers without the log-probabilities of the prompt: {type(error).__name__}",
            hint="deckard-deploy logs",
        ) from error
    if not logprobs:
        raise NetworkError("the engine makes a single token of a passage", hint="more --characters")
    return tokens, tuple(logprobs), tuple(candidates)


def _logprob(entry: Mapping[str, Any]) -> float:
    """Return a log-probability. Raises ValueError for NaN: a model whose logits are NaN answers so."""
    value = float(entry["logprob"])
    if math.isnan(value):
        raise ValueError("NaN")
    return max(min(value, 0.0), _IMPOSSIBLE)


def save(path: Path, scores: ServedScores) -> None:
    """Write the scores to a file. Raises EnvironmentUnfitError."""
    write_atomically(path, scores.model_dump_json() + "\n", mode=UMASK_MODE)


def load(path: Path) -> ServedScores:
    """Read a file that `save` wrote. Raises BadInputError if it is not there, IntegrityError if it is another file."""
    try:
        if not path.is_file():
            raise BadInputError(
                f"{path} is not a file of scores", hint="deckard-deploy compare NAME --save FILE"
            )
        if path.stat().st_size > MAX_FILE:
            raise IntegrityError(f"{path} has more than {MAX_FILE >> 20} MiB: these are no scores")
        return ServedScores.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][:4]) or "the whole"
        raise IntegrityError(
            f"{path}: not scores of `compare`: {where}: {first['msg']}"[:200],
            hint="deckard-deploy compare NAME --save FILE",
        ) from error
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from error
