"""`compare`: two served models on a text of the user's own, by the log-probabilities that their engines give to it."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import requests

from deckard_deploy.catalog import library
from deckard_deploy.errors import BadInputError, DeployError, NetworkError
from deckard_deploy.measuring import scores
from deckard_deploy.measuring.comparison import Ratio
from deckard_deploy.measuring.comparison import compare as compare_speeds
from deckard_deploy.measuring.fidelity import (
    NO_DIFFERENCE,
    Fidelity,
    compare_scores,
    other_greedy,
    passage_kl,
)
from deckard_deploy.measuring.scores import PassageScore, PassageText, ServedScores
from deckard_deploy.operations.chat import ChatEndpoint, refusal
from deckard_deploy.operations.deployments import DeploymentRef, running_plan, select_engine
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.release import asked_model
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.releases import Releases
from deckard_deploy.system.http import session

DEFAULT_TOP = 20  # vLLM's default of --max-logprobs (0.19.1 config/model.py:211, 0.32.0 config/model.py:282)
_SPEED_RUNS, _SPEED_TOKENS, _SPEED_PROMPT = 5, 64, 200


@dataclass(frozen=True)
class ComparedModels:
    """Two sides, what they say of the text, and their speeds: B / A, or None if a side has none."""

    a: ServedScores
    b: ServedScores
    found: Fidelity
    speed: Ratio | None

    @property
    def no_difference(self) -> bool:
        """True if none of the three figures of the text shows a difference."""
        found = self.found
        verdicts = (found.perplexity_verdict, found.kl_verdict, found.greedy_verdict)
        return all(verdict == NO_DIFFERENCE for verdict in verdicts)


def read_text(path: Path, *, characters: int, most: int) -> PassageText:
    """Split a text file into passages. Raises BadInputError for a file that is no text or too short."""
    return scores.read_passages(path, characters=characters, most=most)


def save(path: Path, scored: ServedScores) -> None:
    """Keep the scores of a side, which `side` reads again. Raises EnvironmentUnfitError."""
    scores.save(path, scored)


def side(named: str, text: PassageText | None, state_dir: Path | None, report: Reporter) -> ServedScores:
    """Return the scores of a side: of a file that `--save` wrote, or of a deployment that runs.

    Raises BadInputError, IntegrityError, NetworkError, EnvironmentUnfitError.
    """
    if named.endswith(".json"):
        return scores.load(Path(named))
    if text is None:
        raise BadInputError(f"a text is needed to score the deployment {named[:80]}", hint="--text FILE")
    return score_deployment(named, text, state_dir, report)


def compare(a: ServedScores, b: ServedScores) -> ComparedModels:
    """Compare two sides. Raises BadInputError if their texts or their tokenizers differ."""
    found = compare_scores(a, b)
    speed = None
    if a.speeds and b.speeds:
        speed = compare_speeds({1: a.speeds}, {1: b.speeds}).overall
    return ComparedModels(a, b, found, speed)


def score_deployment(name: str, text: PassageText, state_dir: Path | None, report: Reporter) -> ServedScores:
    """Ask a running deployment for the log-probabilities of every passage, twice, and measure its speed."""
    deployment = select_engine(Selection(state_dir, name))
    plan = running_plan(deployment, report)
    endpoint = ChatEndpoint(plan.base_url, plan.served_name, credentials(plan, deployment.directory))
    top = _top(plan)
    report.say(f"compare  {name}: {len(text.passages)} passages, twice, with {top} candidates a token")
    passages = []
    for passage in text.passages:
        passages.append(score_passage(endpoint, passage, top))
    return ServedScores(
        deployment=name,
        model=plan.model,
        engine=plan.engine,
        plan=plan.hash,
        weight_bytes=_weight_bytes(deployment, plan),
        text_sha256=text.sha256,
        top=top,
        speeds=_speeds(endpoint, text),
        passages=tuple(passages),
    )


def _top(plan: LaunchPlan) -> int:
    """Return the number of candidates to ask for. Raises BadInputError for an engine that reports none."""
    allowed = int(plan.option("max-logprobs") or DEFAULT_TOP)
    if allowed == 0:
        raise BadInputError(
            f"{plan.deployment} runs with --max-logprobs 0: its engine reports no log-probabilities",
            hint=f"deckard-deploy up --name {plan.deployment} --set max-logprobs={DEFAULT_TOP}",
        )
    return DEFAULT_TOP if allowed < 0 else min(allowed, DEFAULT_TOP)


def _weight_bytes(deployment: DeploymentRef, plan: LaunchPlan) -> int | None:
    """Return the bytes of the model's tensors; None for a model that is known no more."""
    release = Releases(deployment.directory.deployment(deployment.name)).get(plan.hash)
    own = asked_model(release) if release else None
    try:
        model = own or library.model(plan.model)
    except DeployError:
        return None
    return sum(model.component_bytes.values()) or int(model.size_gb * 1e9)


def score_passage(endpoint: ChatEndpoint, passage: str, top: int) -> PassageScore:
    """Ask for a passage twice. The second answer tells how far the engine differs from itself.

    Raises BadInputError (refused), NetworkError.
    """
    body = {
        "model": endpoint.model,
        "prompt": passage,
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": top,
        "return_token_ids": True,
    }
    tokens, logprobs, first = scores.parse_answer(_completion(endpoint, body))
    _, _, second = scores.parse_answer(_completion(endpoint, body))
    return PassageScore(
        token_ids=tokens,
        logprobs=logprobs,
        candidates=first,
        noise_kl=passage_kl(first, second),
        noise_greedy=other_greedy(first, second),
    )


def _speeds(endpoint: ChatEndpoint, text: PassageText) -> tuple[float, ...]:
    """Return the tokens per second of single requests, the wait for the first token included; one warms up before."""
    body = {
        "model": endpoint.model,
        "prompt": text.passages[0][:_SPEED_PROMPT],
        "max_tokens": _SPEED_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    speeds = []
    for _ in range(_SPEED_RUNS + 1):
        begun = time.monotonic()
        answer = _completion(endpoint, body)
        try:
            generated = int(answer["usage"]["completion_tokens"])
        except (KeyError, TypeError, ValueError) as error:
            raise NetworkError("the engine answers without its tokens", hint="deckard-deploy logs") from error
        speeds.append(generated / (time.monotonic() - begun))
    return tuple(speeds[1:])


def _completion(endpoint: ChatEndpoint, body: dict[str, Any]) -> Any:  # noqa: ANN401  any JSON
    url = f"{endpoint.base_url}/completions"
    with session(endpoint.access) as http:
        try:
            response = http.post(url, json=body, timeout=(5, 600))
            if response.status_code != 200:
                raise refusal(url, response)
            return response.json()
        except requests.JSONDecodeError as error:
            raise NetworkError(f"{url} answers, and not with JSON", hint="deckard-deploy logs") from error
        except requests.RequestException as error:
            raise NetworkError(f"{url}: {type(error).__name__}", hint="deckard-deploy wait") from error


def as_json(compared: ComparedModels) -> dict[str, Any]:
    """Return the comparison as plain data."""
    found = compared.found
    return {
        "a": _side_json(compared.a, found.perplexity_a),
        "b": _side_json(compared.b, found.perplexity_b),
        "passages": found.passages,
        "tokens": found.tokens,
        "perplexity_ratio": {**asdict(found.perplexity_ratio), "verdict": found.perplexity_verdict},
        "kl": {**asdict(found.kl), "excess": asdict(found.excess_kl), "verdict": found.kl_verdict},
        "same_greedy": {
            **asdict(found.same_greedy),
            "excess": asdict(found.excess_greedy),
            "verdict": found.greedy_verdict,
        },
        "speed": _speed_json(compared.speed),
        "no_difference": compared.no_difference,
    }


def _side_json(scored: ServedScores, perplexity: float) -> dict[str, Any]:
    named = scored.model_dump(include={"deployment", "model", "engine", "plan", "weight_bytes", "top"})
    return {**named, "perplexity": perplexity, "speeds": list(scored.speeds)}


def _speed_json(speed: Ratio | None) -> dict[str, Any] | None:
    return {**asdict(speed), "verdict": speed.verdict} if speed else None
