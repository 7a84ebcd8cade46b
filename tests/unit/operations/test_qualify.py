"""`qualify`: the checks of the catalog, and those of a release that is not there."""

import sys
from pathlib import Path

import pytest

from deckard_deploy.catalog import library, listing
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations import qualify
from deckard_deploy.operations.reporting import SILENT

LOGS = Path(__file__).parents[1] / "startup" / "logs"


def verdicts(engine: str) -> dict[str, str]:
    return {check.name: check.verdict for check in qualify.qualify(engine, None, SILENT)}


@pytest.mark.parametrize("engine", listing.names("engines"))
def test_every_engine_passes_the_checks_of_the_catalog(engine: str) -> None:
    found = verdicts(engine)
    assert [name for name, verdict in found.items() if verdict == "fail"] == []
    assert found["command lines"] == "not run"


def test_unknown_engine_raises() -> None:
    with pytest.raises(BadInputError, match="engine"):
        qualify.qualify("vllm-9.9.9", None, SILENT)


def test_release_without_answers_fails() -> None:
    engine = library.engine("vllm-0.33.0").model_copy(update={"option_schema": "vllm-0.19.1"})
    assert qualify.changes(engine).verdict == "ok"  # nothing changed since itself
    unlisted = engine.model_copy(update={"option_schema": "vllm-9.9.9"})
    assert qualify.metrics(unlisted).verdict == "fail"


def test_parser_of_another_python_fails() -> None:
    """The tool's own Python has no vLLM."""
    engine = library.engine("vllm-0.33.0")
    python = Path(sys.executable)
    checks = [qualify.options(engine, python), qualify.command_lines(engine, python)]
    assert {(check.verdict, "vllm" in check.detail) for check in checks} == {("fail", True)}


@pytest.mark.parametrize("engine", ["vllm-0.32.0", "vllm-0.33.0", "vllm-0.33.0-host"])
def test_every_profile_has_lines_for_the_parser(engine: str) -> None:
    plans = list(qualify.plans_of(library.engine(engine)))
    assert {plan.profile for plan in plans} == set(listing.names("profiles")) - {"cpu"}
    assert any(plan.speculative for plan in plans)


def test_phases_of_a_real_log() -> None:
    log = (LOGS / "ready.mtp-0.33.log").read_text(encoding="utf-8")
    found = qualify.phases_of(log, ready=True)
    assert found.verdict == "ok"
    assert "drafter" in found.detail
    assert "316551 tokens" in found.detail


def test_log_without_a_phase_fails() -> None:
    log = (LOGS / "ready.mtp-0.33.log").read_text(encoding="utf-8")
    cut = "\n".join(line for line in log.splitlines() if "KV cache size" not in line)
    found = qualify.phases_of(cut, ready=True)
    assert (found.verdict, "KV cache" in found.detail) == ("fail", True)


def test_server_that_ended_is_a_failed_start() -> None:
    found = qualify.phases_of("(APIServer pid=1) INFO x\nRuntimeError: no", ready=False)
    assert (found.verdict, found.detail) == ("fail", "after container: RuntimeError: no")


def test_every_engine_says_when_it_retires() -> None:
    assert [name for name in listing.names("engines") if not library.engine(name).retires] == []
