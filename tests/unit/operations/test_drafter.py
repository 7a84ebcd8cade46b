"""What a start says of its drafter where nothing can be measured; the verdicts are run on a real server."""

from contextlib import closing
from random import Random

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, Publish
from deckard_deploy.operations.drafter import check_drafter_acceptance
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.system.http import ANONYMOUS
from tests.support.misbehaving_server import Misbehaving, Reply


def said(drafter: str) -> list[str]:
    """Port 9 is the discard service's: nothing answers there."""
    choice = Deployment(drafter=drafter, publish=Publish(port=9))
    lines: list[str] = []
    check_drafter_acceptance(
        build_plan(resolve(choice, profile=library.profile("spark"))), ANONYMOUS, lines.append
    )
    return lines


def test_plan_without_drafter_is_not_measured() -> None:
    assert said("none") == []


def test_failed_measurement_is_only_reported() -> None:
    (line,) = said("mtp")
    assert line.startswith("drafter  not measured: http://127.0.0.1:9/metrics: ")


def test_missing_token_count_is_read_from_metrics() -> None:
    """Then vLLM takes the drafter's own number, and the counters tell it."""
    name = "vllm:spec_decode_num"
    none = "\n".join(f"{name}_{each}_total 0" for each in ("drafts", "draft_tokens", "accepted_tokens"))
    some = (
        f"{name}_drafts_total 100\n{name}_draft_tokens_total 200\n{name}_accepted_tokens_total 120\n"
        + "\n".join(
            f'{name}_accepted_tokens_per_pos_total{{position="{at}"}} {count}'
            for at, count in enumerate((90, 30))
        )
    )

    def answering(request: str, number: int) -> Reply:
        return Reply(body=(some if number else none).encode() + b"\n" if request.endswith("/metrics") else {})

    plan = build_plan(resolve(Deployment(drafter="mtp"), profile=library.profile("spark")))
    at = plan.arguments.index("--speculative-config") + 1
    arguments = (*plan.arguments[:at], '{"method":"mtp","model":"/m"}', *plan.arguments[at + 1 :])
    lines: list[str] = []
    with closing(Misbehaving(answering, Random(0))) as server:
        server.listen()
        check_drafter_acceptance(
            plan.model_copy(update={"arguments": arguments, "port": server.port}), ANONYMOUS, lines.append
        )
    (line,) = lines
    assert line.startswith(
        "drafter  draft fewer tokens: --set drafter_tokens=1 (60% of 200 drafted tokens accepted"
    )
