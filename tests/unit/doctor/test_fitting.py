"""The profiles that recorded and constructed machines can run, and the one that matches."""

from typing import Any

import pytest

from deckard_deploy.catalog import library, listing
from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.fitting import Fit, fit, matching_profile
from deckard_deploy.errors import EnvironmentUnfitError
from tests.support.rule_cases import FACTS, facts

MADE_FOR = {
    "spark-healthy": "spark",
    "spark-page-cache": "spark",
    "spark-driver-590": "spark",
    "spark-orphan-engine": "spark",
    "b200": "b200",
    "h100-no-docker": "h100",
    "laptop-no-docker": "cpu",
    "container-host": "cpu",
}


def fits(host: HostFacts) -> list[Fit]:
    return [fit(library.profile(name), host) for name in listing.names("profiles")]


def verdicts(host: HostFacts) -> dict[str, str]:
    return {each.profile: each.verdict for each in fits(host)}


def with_gpu(**changes: Any) -> HostFacts:
    """The B200's machine with one other GPU in it."""
    gpu = facts(of="b200").gpus[0].model_dump()
    return facts({"gpus": [{**gpu, "memory_used_mib": 0, **changes}], "gpu_processes": []}, of="b200")


def refusal(host: HostFacts) -> EnvironmentUnfitError:
    with pytest.raises(EnvironmentUnfitError) as caught:
        matching_profile(host, fits(host))
    assert "\n" not in caught.value.message
    return caught.value


def test_every_recorded_machine_has_a_case() -> None:
    assert set(MADE_FOR) == {path.stem for path in FACTS.glob("*.json")}


@pytest.mark.parametrize(("name", "profile"), MADE_FOR.items())
def test_machine_gets_its_profile(name: str, profile: str) -> None:
    host = facts(of=name)
    assert matching_profile(host, fits(host)).profile == profile


def test_healthy_spark_runs_spark_and_cpu_only() -> None:
    found = verdicts(facts())
    assert {name for name, verdict in found.items() if verdict == "runs"} == {"spark", "cpu"}
    assert {verdict for name, verdict in found.items() if name not in ("spark", "cpu")} == {"no"}


def test_mendable_state_is_a_change_with_its_fix() -> None:
    (h100,) = (each for each in fits(facts(of="h100-no-docker")) if each.profile == "h100")
    assert h100.verdict == "with changes"
    assert h100.changes[0].startswith("docker is not installed: install docker: https://")
    (spark,) = (each for each in fits(facts(of="spark-orphan-engine")) if each.profile == "spark")
    assert any("kill 21950" in change for change in spark.changes)


def test_wrong_hardware_says_why() -> None:
    found = {each.profile: each for each in fits(facts(of="b200"))}
    assert found["spark"].why == "x86_64, and spark is for arm64"
    assert found["h100"].why.endswith("h100 is for NVIDIA H100 80GB HBM3, 9.0")
    assert {each.why for each in fits(facts(of="laptop-no-docker")) if each.profile == "b200"} == {
        "nvidia-smi is not installed"
    }


def test_board_name_of_early_sparks_is_a_spark() -> None:
    gpu = facts().gpus[0].model_dump()
    host = facts({"gpus": [{**gpu, "name": "JMJWOA"}]})
    assert matching_profile(host, fits(host)).profile == "spark"


def test_similar_gpu_is_judged_by_its_own_memory() -> None:
    small = with_gpu(name="NVIDIA GeForce RTX 5080", compute_capability="12.0", memory_total_mib=16303)
    assert {verdicts(small)[name] for name in ("rtx-5090", "rtx-pro-6000")} == {"no"}
    middle = with_gpu(name="NVIDIA RTX PRO 5000 Blackwell", compute_capability="12.0", memory_total_mib=48935)
    found = {each.profile: each for each in fits(middle)}
    assert found["rtx-5090"].verdict == "runs"
    tiny = with_gpu(name="NVIDIA RTX PRO 4500 Blackwell", compute_capability="12.0", memory_total_mib=32623)
    (change,) = next(each for each in fits(tiny) if each.profile == "rtx-pro-6000").changes
    assert "--set " in change


def test_laptop_gpu_of_same_name_does_not_match() -> None:
    """24 GB where the card has 32: the settings of its profile do not fit."""
    name = "NVIDIA GeForce RTX 5090 Laptop GPU"
    laptop = with_gpu(name=name, compute_capability="12.0", memory_total_mib=24463)
    assert verdicts(laptop)["rtx-5090"] == "no"
    assert f"no profile is made for {name}, x86_64" in refusal(laptop).message
    card = with_gpu(name="NVIDIA GeForce RTX 5090", compute_capability="12.0", memory_total_mib=32607)
    assert matching_profile(card, fits(card)).profile == "rtx-5090"


def test_two_similar_profiles_are_no_match() -> None:
    error = refusal(
        with_gpu(name="NVIDIA RTX PRO 5000 Blackwell", compute_capability="12.0", memory_total_mib=48935)
    )
    assert "no profile is made for NVIDIA RTX PRO 5000 Blackwell, x86_64" in error.message
    assert "--profile rtx-5090 or --profile rtx-pro-6000" in error.hint


PRO_6000 = {"name": "NVIDIA RTX PRO 6000 Blackwell", "compute_capability": "12.0", "memory_total_mib": 97887}
A400 = {"name": "NVIDIA RTX A400", "compute_capability": "8.6", "memory_total_mib": 4094}


def with_gpus(*gpus: dict[str, Any]) -> HostFacts:
    base = {**facts(of="b200").gpus[0].model_dump(), "memory_used_mib": 0}
    numbered = [{**base, **gpu, "index": number} for number, gpu in enumerate(gpus)]
    return facts({"gpus": numbered, "gpu_processes": []}, of="b200")


def test_gpu_behind_a_display_card_is_named_by_its_number() -> None:
    error = refusal(with_gpus(A400, PRO_6000))
    assert "NVIDIA RTX A400, x86_64 is GPU 0" in error.message
    assert error.hint == ("deckard-deploy up --profile rtx-pro-6000 --set environment.CUDA_VISIBLE_DEVICES=1")
    assert (
        matching_profile(with_gpus(PRO_6000, A400), fits(with_gpus(PRO_6000, A400))).profile == "rtx-pro-6000"
    )


def test_first_gpu_decides_between_two_with_a_profile() -> None:
    card = {"name": "NVIDIA GeForce RTX 5090", "compute_capability": "12.0", "memory_total_mib": 32607}
    for gpus, profile in (((card, PRO_6000), "rtx-5090"), ((PRO_6000, card), "rtx-pro-6000")):
        host = with_gpus(*gpus)
        assert matching_profile(host, fits(host)).profile == profile


def test_gpu_without_driver_is_no_machine_without_gpu() -> None:
    without = {"gpus": [], "gpu_problem": "nvidia-smi is not installed"}
    error = refusal(facts({**without, "nvidia_devices": 1}))
    assert (error.message, "install the NVIDIA driver" in error.hint) == (
        "no profile was named, and the GPU cannot be seen: nvidia-smi is not installed",
        True,
    )
    for count in (0, None):
        host = facts({**without, "nvidia_devices": count})
        assert matching_profile(host, fits(host)).profile == "cpu"


def test_two_matching_profiles_are_refused() -> None:
    host = facts()
    twice = [*fits(host), Fit(profile="mine", verdict="runs", why="NVIDIA GB10", made_for_it=True)]
    with pytest.raises(EnvironmentUnfitError, match="several profiles are made for NVIDIA GB10") as caught:
        matching_profile(host, twice)
    assert caught.value.hint == "deckard-deploy up --profile spark or --profile mine"


def test_unknown_gpu_is_refused_with_a_hint() -> None:
    error = refusal(
        with_gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9", memory_total_mib=24564)
    )
    assert "no profile is made for NVIDIA GeForce RTX 4090, x86_64" in error.message
    assert "--profile cpu" in error.hint


def test_silent_driver_is_not_a_missing_gpu() -> None:
    host = facts({"gpus": [], "gpu_problem": "nvidia-smi: NVIDIA-SMI has failed"}, of="b200")
    assert "the GPU cannot be seen: nvidia-smi: NVIDIA-SMI has failed" in refusal(host).message


def test_match_goes_by_total_not_free_memory() -> None:
    full = facts({"memory": {"available_kib": 20 << 20}})
    (spark,) = (each for each in fits(full) if each.profile == "spark")
    assert spark.verdict == "with changes"
    assert matching_profile(full, fits(full)).profile == "spark"
