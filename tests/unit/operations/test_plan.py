"""The plan for this host: the size of the KV cache on a unified machine."""

from pathlib import Path, PurePosixPath

import pytest

from deckard_deploy.errors import DoesNotFitError, EnvironmentUnfitError
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import (
    changes_to,
    current_plan,
    gateway_program,
    memory_verdict,
    plan_for_host,
    plan_with_memory,
    require_fit,
    view_plan,
    with_measured_memory,
)
from deckard_deploy.operations.release import create_release
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.planning.memory.fit import memory_of
from deckard_deploy.planning.plan import CdiGpus
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Releases
from deckard_deploy.system.meminfo import total_and_available
from deckard_deploy.system.unknown import Unknown
from tests.support.fake_deployment import FakeDeployment
from tests.support.sample_choices import choice

SPARK_KIB = 127_601_452  # MemTotal of a Spark, 121.69 GiB


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path / "home"))


def meminfo(folder: Path, *, total_kib: int = SPARK_KIB, available_gib: int = 110) -> Path:
    file = folder / "meminfo"
    file.write_text(
        f"MemTotal:       {total_kib} kB\nMemFree:  1 kB\nMemAvailable:   {available_gib * 2**20} kB\n"
    )
    return file


def test_current_release_keeps_kv_size(
    tmp_path: Path,
) -> None:
    directory = StateDir(tmp_path / "home")
    resolved, plan, *_ = plan_with_memory(choice("spark"), directory, None, meminfo=meminfo(tmp_path))
    assert "kv-cache-memory-bytes" in resolved.serve
    directory.create(plan.deployment)
    releases = Releases(directory.deployment(plan.deployment))
    releases.switch(create_release(plan, releases)[0])
    current = current_plan(directory, plan.deployment)
    while_it_runs = meminfo(tmp_path, available_gib=30)
    _, again, memory, _ = plan_with_memory(choice("spark"), directory, current, meminfo=while_it_runs)
    assert again.hash == plan.hash
    assert not isinstance(memory, Unknown)
    assert memory.verdict == "fits"
    _, changed, memory, _ = plan_with_memory(
        choice("spark", "max-num-seqs=2"), directory, current, meminfo=while_it_runs
    )
    assert changed.hash != plan.hash
    assert not isinstance(memory, Unknown)
    assert memory.kv_bytes() == 2 * memory.bytes_per_sequence
    smaller = meminfo(tmp_path, total_kib=int(119.68 * 2**20), available_gib=30)
    same, again, *_ = plan_with_memory(choice("spark"), directory, current, meminfo=smaller)
    assert again.hash == plan.hash
    # The machine's own, while a release runs too.
    assert same.profile.hardware.memory_gib == pytest.approx(119.68)


def test_kv_size_is_set_on_spark(tmp_path: Path) -> None:
    resolved, available = with_measured_memory(choice("spark"), None, meminfo=meminfo(tmp_path))
    need = memory_of(resolved).bytes_per_sequence
    assert available == 110 * 2**30
    assert resolved.serve["kv-cache-memory-bytes"] == 4 * need
    assert memory_of(resolved, available=available).verdict == "fits"
    arguments = build_plan(resolved).arguments
    assert arguments[arguments.index("--kv-cache-memory-bytes") + 1] == str(4 * need)


@pytest.mark.parametrize("total_kib", [125_489_508, 125_506_464])
def test_smaller_spark_is_a_spark(total_kib: int, tmp_path: Path) -> None:
    """119.7 GiB is what many have: their plan is of that, not of the profile's 121.69."""
    resolved, available = with_measured_memory(
        choice("spark"), None, meminfo=meminfo(tmp_path, total_kib=total_kib)
    )
    found = memory_of(resolved, available=available)
    assert resolved.serve["kv-cache-memory-bytes"] == 4 * found.bytes_per_sequence
    assert found.total == total_kib * 1024
    assert found.requested == pytest.approx(0.8 * total_kib * 1024, abs=1)


@pytest.mark.parametrize(
    ("profile", "total_kib"),
    [
        ("spark", 24 * 2**20),
        ("spark", 131_700_000),
        ("b200", SPARK_KIB),
        ("cpu", SPARK_KIB),
        ("thor", SPARK_KIB),
    ],
)
def test_kv_size_is_not_set_elsewhere(profile: str, total_kib: int, tmp_path: Path) -> None:
    before = choice(profile)
    file = meminfo(tmp_path, total_kib=total_kib)
    assert with_measured_memory(before, None, meminfo=file) == (before, None)


def test_kv_size_of_user_is_kept(tmp_path: Path) -> None:
    before = choice("spark", "kv-cache-memory-bytes=20000000000")
    resolved, available = with_measured_memory(before, None, meminfo=meminfo(tmp_path))
    assert (resolved.serve, available) == (before.serve, 110 * 2**30)


def test_free_memory_is_ignored_while_running(tmp_path: Path) -> None:
    current = build_plan(choice("spark"))
    resolved, available = with_measured_memory(
        choice("spark"), current, meminfo=meminfo(tmp_path, available_gib=20)
    )
    assert available is None
    assert "kv-cache-memory-bytes" in resolved.serve


def test_too_little_free_memory_sets_no_kv_size(tmp_path: Path) -> None:
    file = meminfo(tmp_path, available_gib=60)
    resolved, available = with_measured_memory(choice("spark"), None, meminfo=file)
    assert "kv-cache-memory-bytes" not in resolved.serve
    assert memory_of(resolved, available=available).verdict == "no"


def test_missing_meminfo_is_zero(tmp_path: Path) -> None:
    assert total_and_available(tmp_path / "none") == (0, 0)


def test_view_of_first_deployment_has_no_changes(tmp_path: Path) -> None:
    view = view_plan(Choice(profile="b200"), tmp_path / "home", SILENT)
    assert (view.current, view.changes, view.fitting, view.drafter) == (None, [], (), None)
    assert memory_verdict(view.planned) == "fits"
    require_fit(view)
    assert not (tmp_path / "home").exists()


def test_unfit_plan_has_changes(tmp_path: Path) -> None:
    settings = ("max-model-len=262144", "kv-cache-dtype=auto")
    view = view_plan(Choice(profile="rtx-5090", settings=settings), tmp_path / "home", SILENT)
    assert memory_verdict(view.planned) == "no"
    assert len(view.fitting) == 3
    with pytest.raises(DoesNotFitError) as refused:
        require_fit(view)
    assert " ".join(view.fitting[0].options) in str(refused.value.hint)


def test_changes_from_current_release_are_listed(fake: FakeDeployment) -> None:
    release = fake.stored(fake.plan())[0]
    fake.releases.switch(release)
    current = current_plan(fake.state, "box")
    assert current == release.plan
    assert changes_to(fake.plan(), current) == []
    assert any("NUMBER" in change for change in changes_to(fake.plan(NUMBER="2"), current))
    assert current_plan(fake.state, "crate") is None


def test_nginx_on_the_host_changes_no_deployment() -> None:
    nginx = PurePosixPath("/usr/sbin/nginx")
    without = build_plan(choice("cpu"))
    behind = build_plan(choice("cpu"), DEFAULT_PATHS._replace(nginx=nginx))
    assert gateway_program(choice("cpu"), None, installed=str(nginx)) == nginx
    assert gateway_program(choice("cpu"), None, installed=None) is None
    assert gateway_program(choice("cpu"), without, installed=str(nginx)) is None
    assert gateway_program(choice("cpu"), behind, installed=str(nginx)) == nginx
    for setting in ("gateway=nginx", "publish.tls=true", "publish.expose=0.0.0.0"):
        assert gateway_program(choice("cpu", setting), without, installed=str(nginx)) == nginx
    with pytest.raises(EnvironmentUnfitError, match="nginx is not installed any more, and cpu has it"):
        gateway_program(choice("cpu"), behind, installed=None)
    assert gateway_program(choice("cpu", "gateway=off"), behind, installed=None) is None


def answering_docker(folder: Path, info: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a docker on PATH that answers `docker info`."""
    folder.mkdir(exist_ok=True)
    (folder / "info").write_text(info)
    (folder / "docker").write_text(f"#!/bin/sh\nexec /bin/cat {folder}/info\n")
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


CDI = '{"Runtimes": {"runc": {}}, "CDISpecDirs": ["/etc/cdi"]}'
NVIDIA = '{"Runtimes": {"runc": {}, "nvidia": {}}, "CDISpecDirs": ["/etc/cdi"]}'


def test_gpus_are_reserved_as_docker_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = StateDir(tmp_path / "home")
    answering_docker(tmp_path / "bin", CDI, monkeypatch)
    plan = plan_for_host(choice("spark"), directory, None)
    assert isinstance(plan.gpus, CdiGpus)
    assert not isinstance(plan_for_host(choice("spark", "gpu_driver=nvidia"), directory, None).gpus, CdiGpus)
    answering_docker(tmp_path / "bin", NVIDIA, monkeypatch)
    assert not isinstance(plan_for_host(choice("spark"), directory, None).gpus, CdiGpus)
    assert plan_for_host(choice("spark"), directory, plan).gpus == plan.gpus  # what runs by CDI keeps it
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not isinstance(plan_for_host(choice("spark"), directory, None).gpus, CdiGpus)


def test_containers_of_rootless_docker_run_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering_docker(tmp_path / "bin", '{"SecurityOptions": ["name=rootless"]}', monkeypatch)
    plan = plan_for_host(choice("cpu", "engine=vllm-0.19.1-cpu-docker"), StateDir(tmp_path / "home"), None)
    assert plan.gateway is not None
    assert (plan.user, plan.gateway.user) == ("0:0", "0:0")
