"""Two deployments with real processes on one text: equal to themselves, and different if their model differs."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from deckard_deploy.errors import BadInputError, DeployError, NetworkError
from deckard_deploy.measuring.scores import PassageText
from deckard_deploy.operations.chat import ChatEndpoint
from deckard_deploy.operations.compare import compare, read_text, save, score_deployment, score_passage, side
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.system.http import ANONYMOUS
from tests.support.fake_deployment import FakeDeployment
from tests.support.misbehaving_server import Misbehaving, Reply


@pytest.fixture
def text(tmp_path: Path) -> PassageText:
    path = tmp_path / "text"
    path.write_text(" ".join(f"{number} words of a text." for number in range(200)))
    return read_text(path, characters=100, most=12)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[FakeDeployment]:
    """Yield a deployment in another state directory, whose model differs."""
    deployment = FakeDeployment(tmp_path / "other")
    yield deployment
    deployment.end()


def test_deployment_against_itself_has_no_difference(fake: FakeDeployment, text: PassageText) -> None:
    fake.proven(fake.plan())
    scored = score_deployment("box", text, fake.state.root, SILENT)
    assert len(scored.passages) == 12
    assert len(scored.speeds) == 5
    assert scored.top == 20
    assert scored.weight_bytes is None  # the catalog has no model `tiny`
    compared = compare(scored, score_deployment("box", text, fake.state.root, SILENT))
    assert compared.no_difference
    assert (compared.found.kl.value, compared.found.same_greedy.value) == (0, 1)


def test_kept_side_is_compared_with_another_model(
    fake: FakeDeployment, other: FakeDeployment, text: PassageText, tmp_path: Path
) -> None:
    fake.proven(fake.plan())
    save(tmp_path / "a.json", side("box", text, fake.state.root, SILENT))
    other.proven(other.plan(FAKE_SHIFT="1.5"))
    kept = side(str(tmp_path / "a.json"), None, None, SILENT)
    compared = compare(kept, side("box", text, other.state.root, SILENT))
    assert not compared.no_difference
    assert compared.found.kl_verdict == "different"
    assert compared.found.greedy_verdict == "different"
    assert compared.speed is not None


def with_option(plan: LaunchPlan, *option: str) -> LaunchPlan:
    return plan.model_copy(update={"arguments": (*plan.arguments, *option)})


def test_engine_decides_the_number_of_candidates(fake: FakeDeployment, text: PassageText) -> None:
    fake.proven(with_option(fake.plan(), "--max-logprobs", "3"))
    assert score_deployment("box", text, fake.state.root, SILENT).top == 3


def test_engine_without_logprobs_is_refused(fake: FakeDeployment, text: PassageText) -> None:
    fake.proven(with_option(fake.plan(), "--max-logprobs", "0"))
    with pytest.raises(BadInputError, match="--max-logprobs 0"):
        score_deployment("box", text, fake.state.root, SILENT)


def test_deployment_that_does_not_run_is_refused(fake: FakeDeployment, text: PassageText) -> None:
    fake.stored(fake.plan())
    with pytest.raises(BadInputError, match="does not run"):
        side("box", text, fake.state.root, SILENT)


def test_deployment_without_a_text_is_refused(fake: FakeDeployment) -> None:
    with pytest.raises(BadInputError, match="a text is needed to score the deployment"):
        side("box", None, fake.state.root, SILENT)


REPLIES: dict[str, tuple[Reply, type[DeployError]]] = {
    "too long": (Reply(status=400, body=b'{"error": {"message": "maximum context length"}}'), BadInputError),
    "no json": (Reply(body=b"hello"), NetworkError),
    "no logprobs": (Reply(body=b'{"choices": [{"text": "x"}]}'), NetworkError),
    "down": (Reply(status=503, body=b""), NetworkError),
}


@pytest.mark.parametrize("name", REPLIES)
def test_engine_that_answers_otherwise_is_one_line(name: str) -> None:
    reply, error = REPLIES[name]
    with closing(Misbehaving(lambda *_: reply, Random(0))) as server:
        server.listen()
        with pytest.raises(error) as refused:
            score_passage(ChatEndpoint(server.url, "t", ANONYMOUS), "a passage", 5)
    assert "\n" not in refused.value.message
