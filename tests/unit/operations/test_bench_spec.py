"""`bench spec`: the plan with other numbers of drafted tokens, and the deployments that it refuses."""

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.bench_spec import drafting_plan, explain
from deckard_deploy.operations.deployments import DeploymentRef
from deckard_deploy.operations.options import Selection
from tests.support.fake_deployment import FakeDeployment
from tests.support.sample_plans import built_in


def test_draft_tokens_change_only_their_option() -> None:
    config = '{"method":"ngram","num_speculative_tokens":4}'
    arguments = ("/m", "--max-num-seqs", "4", "--speculative-config", config, "--enforce-eager")
    plan = built_in("cpu").model_copy(update={"arguments": arguments})
    assert plan.with_draft_tokens(0).arguments == ("/m", "--max-num-seqs", "4", "--enforce-eager")
    assert plan.with_draft_tokens(4) == plan
    assert '"num_speculative_tokens":2' in plan.with_draft_tokens(2).arguments[4]
    assert plan.with_draft_tokens(2).model_copy(update={"arguments": arguments}) == plan


def test_plan_without_drafter_is_refused(fake: FakeDeployment) -> None:
    deployment = DeploymentRef(fake.state, "box")
    with pytest.raises(BadInputError, match="box was never ready"):
        drafting_plan(deployment)
    fake.releases.switch(fake.stored(fake.plan())[0])
    with pytest.raises(BadInputError, match="box has no drafter to try") as refused:
        drafting_plan(deployment)
    assert refused.value.hint == "deckard-deploy up --profile cpu --name box --drafter NAME"


def test_explain_names_every_restart(fake: FakeDeployment) -> None:
    plan = fake.plan()
    config = '{"method":"ngram","num_speculative_tokens":4}'
    arguments = (*plan.arguments, "--speculative-config", config)
    plan = plan.model_copy(update={"arguments": arguments})
    fake.releases.switch(fake.stored(plan)[0])
    line = explain(Selection(fake.state.root), (1, 2))
    assert line == f"would    restart plan {plan.hash} without its drafter, then drafting 1, 2"
