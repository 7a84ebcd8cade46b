"""`bench spec`: the plan with other numbers of drafted tokens."""

from tests.support.sample_plans import built_in


def test_draft_tokens_change_only_their_option() -> None:
    config = '{"method":"ngram","num_speculative_tokens":4}'
    arguments = ("/m", "--max-num-seqs", "4", "--speculative-config", config, "--enforce-eager")
    plan = built_in("cpu").model_copy(update={"arguments": arguments})
    assert plan.with_draft_tokens(0).arguments == ("/m", "--max-num-seqs", "4", "--enforce-eager")
    assert plan.with_draft_tokens(4) == plan
    assert '"num_speculative_tokens":2' in plan.with_draft_tokens(2).arguments[4]
    assert plan.with_draft_tokens(2).model_copy(update={"arguments": arguments}) == plan
