"""A second deployment on a machine: its memory, port and GPUs next to one that runs."""

import json
from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.overrides import with_settings
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.strict_yaml import parse
from deckard_deploy.cli.main import run
from deckard_deploy.errors import DoesNotFitError, EnvironmentUnfitError
from deckard_deploy.operations.plan import (
    HostPlan,
    PlanView,
    changes_of_both,
    current_plan,
    plan_with_memory,
    refuse_what_cannot_run,
    require_fit,
)
from deckard_deploy.operations.release import create_release, record_asked
from deckard_deploy.planning.memory.fit import CONTEXT, RESERVE
from deckard_deploy.planning.memory.settings import GIB
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.releases import Releases
from deckard_deploy.system.unknown import Unknown
from tests.support.fake_deployment import FakeDeployment
from tests.support.fake_machine import machine, write_program
from tests.support.json_output import checked
from tests.support.ports import free_port
from tests.support.sample_choices import patched

__all__ = ["machine"]
SPARK_KIB = 127_601_452  # MemTotal of a Spark, 121.69 GiB


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def meminfo(folder: Path, available_gib: int = 110) -> Path:
    file = folder / "meminfo"
    file.write_text(f"MemTotal: {SPARK_KIB} kB\nMemFree: 1 kB\nMemAvailable: {available_gib * 2**20} kB\n")
    return file


def choice(profile: str, *settings: str) -> Resolved:
    deployment = with_settings(parse("", source="deckard.yaml"), settings)
    return resolve(deployment, profile=patched(profile))


def embedder(profile: str, *settings: str) -> Resolved:
    """Return the choice of a model of vectors of 1.2 GB, whose memory is not computed."""
    model = library.model("gemma-4-e2b-it").model_copy(
        update={
            "name": "vectors", "size_gb": 1.2, "drafters": (), "served_by": (), "quantization": "none",
            "architecture": library.model("ngram").architecture,
            "serve": {"runner": "pooling", "convert": "embed", "max-model-len": None},
        }
    )  # fmt: skip
    deployment = with_settings(parse("", source="deckard.yaml"), settings)
    return resolve(deployment, profile=library.profile(profile), model=model)


def run_chat(
    fake: FakeDeployment, profile: str, *options: str, asked: tuple[str, ...] = (), **changes: object
) -> LaunchPlan:
    """Run a deployment `box` of the profile. options: more of its arguments. asked: its recorded settings."""
    plan = fake.plan()
    plan = plan.model_copy(update={"profile": profile, "arguments": (*plan.arguments, *options), **changes})
    release = fake.proven(plan)
    document = with_settings(parse("", source="deckard.yaml"), ("engine=vllm-0.19.1", "drafter=none", *asked))
    record = {"profile": profile, "deployment": document.model_dump(mode="json", exclude_defaults=True)}
    record_asked(release, fake.releases, json.dumps(record))
    return plan


def planned(resolved: Resolved, fake: FakeDeployment, file: Path) -> HostPlan:
    return plan_with_memory(resolved, fake.state, current_plan(fake.state, resolved.name), meminfo=file)


def view(plan: HostPlan) -> PlanView:
    return PlanView(plan, None, [], (), None)


def test_machine_without_others_is_planned_as_before(fake: FakeDeployment, tmp_path: Path) -> None:
    fake.stored(fake.plan())  # it does not run
    found = planned(choice("spark", "name=desk"), fake, meminfo(tmp_path))
    assert found.shared is None
    assert not isinstance(found.memory, Unknown)
    assert found.memory.available == 110 * GIB


def test_loading_neighbour_counts_with_its_plan(fake: FakeDeployment, tmp_path: Path) -> None:
    """What it will take is not taken yet: 110 GiB are available."""
    run_chat(fake, "spark", "--gpu-memory-utilization", "0.5")
    found = planned(choice("spark", "name=desk"), fake, meminfo(tmp_path))
    assert found.shared is not None
    assert [(each.name, each.port) for each in found.shared.neighbours] == [("box", fake.port)]
    assert found.shared.free == pytest.approx(0.5 * 121.69 * GIB, rel=0.001)
    assert not isinstance(found.memory, Unknown)
    assert found.memory.available == found.shared.free
    with pytest.raises(DoesNotFitError, match=r"next to box: vLLM wants 97\.4 GiB free") as refused:
        refuse_what_cannot_run(found)
    assert "deckard-deploy down --name box" in str(refused.value.hint)


def test_free_memory_counts_if_it_is_less(fake: FakeDeployment, tmp_path: Path) -> None:
    run_chat(fake, "spark", "--gpu-memory-utilization", "0.5")
    found = planned(choice("spark", "name=desk"), fake, meminfo(tmp_path, available_gib=30))
    assert found.shared is not None
    assert (found.shared.free, found.shared.usable) == (30 * GIB, 30 * GIB - RESERVE)


def test_fixed_kv_cache_counts_with_weights_and_engine(fake: FakeDeployment, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "a.safetensors").write_bytes(bytes(1000))
    arguments = (str(weights), *fake.plan().arguments[1:], "--kv-cache-memory-bytes", str(20 * GIB))
    run_chat(fake, "spark", arguments=arguments)
    found = planned(choice("spark", "name=desk"), fake, meminfo(tmp_path))
    assert found.shared is not None
    assert found.shared.neighbours[0].taken == 1000 + 20 * GIB + int(8.7 * GIB)


def test_small_model_of_vectors_fits_next_to_chat(fake: FakeDeployment, tmp_path: Path) -> None:
    run_chat(fake, "spark", "--gpu-memory-utilization", "0.8")
    found = planned(embedder("spark"), fake, meminfo(tmp_path))
    assert (found.plan.deployment, found.problem) == ("spark-embed", "")
    refuse_what_cannot_run(found)
    require_fit(view(found))


def test_model_of_unknown_memory_is_refused_with_smaller_share(fake: FakeDeployment, tmp_path: Path) -> None:
    run_chat(fake, "spark", "--gpu-memory-utilization", "0.8")
    found = planned(embedder("spark", "gpu-memory-utilization=0.5"), fake, meminfo(tmp_path))
    with pytest.raises(DoesNotFitError, match=r"next to box: vLLM wants 60\.8 GiB") as refused:
        refuse_what_cannot_run(found)
    assert str(refused.value.hint).startswith("--set gpu-memory-utilization=0.13; or: ")
    smaller = planned(embedder("spark", "gpu-memory-utilization=0.13"), fake, meminfo(tmp_path))
    assert smaller.problem == ""
    with pytest.raises(DoesNotFitError):
        require_fit(view(found))


def test_changes_for_both_fit_together(fake: FakeDeployment, tmp_path: Path) -> None:
    """A second 31B needs so much that the first has to give some."""
    run_chat(fake, "spark", "--gpu-memory-utilization", "0.8", asked=("gpu-memory-utilization=0.8",))
    found = planned(choice("spark", "name=desk"), fake, meminfo(tmp_path))
    both = changes_of_both(view(found))
    assert both is not None
    assert both.neighbour == "box"
    shares = []
    for options in (both.options, both.neighbour_options):
        settings = [option.removeprefix("--set ") for option in options]
        shares += [float(each.partition("=")[2]) for each in settings if "utilization" in each]
        alone = choice("spark", "name=desk", *settings)
        assert not isinstance(planned(alone, fake, meminfo(tmp_path)).memory, Unknown)
    assert len(shares) == 2
    assert sum(shares) * 121.69 * GIB <= 121.69 * GIB - RESERVE
    with pytest.raises(DoesNotFitError) as refused:
        require_fit(view(found))
    assert f"up --name box with {' '.join(both.neighbour_options)}, which restarts it" in str(
        refused.value.hint
    )
    # The first, made smaller, leaves enough for the second with its change.
    fake.end()
    run_chat(fake, "spark", "--gpu-memory-utilization", str(shares[1]), asked=())
    settings = [option.removeprefix("--set ") for option in both.options]
    after = planned(choice("spark", "name=desk", *settings), fake, meminfo(tmp_path))
    refuse_what_cannot_run(after)
    require_fit(view(after))


def test_nothing_of_the_other_is_touched(fake: FakeDeployment, tmp_path: Path) -> None:
    run_chat(fake, "spark", "--gpu-memory-utilization", "0.8")
    before = (fake.runtime().observe(), sorted(fake.deployment.folder.rglob("*")))
    planned(choice("spark", "name=desk"), fake, meminfo(tmp_path))
    assert (fake.runtime().observe(), sorted(fake.deployment.folder.rglob("*"))) == before


def test_port_of_neighbour_is_passed_over(fake: FakeDeployment, tmp_path: Path) -> None:
    run_chat(fake, "cpu")
    settings = ("name=desk",)
    near = choice("cpu", *settings)
    near = near.__class__(**{**vars(near), "publish": near.publish.model_copy(update={"port": fake.port})})
    found = planned(near, fake, meminfo(tmp_path))
    assert found.plan.port > fake.port
    assert f"--port {found.plan.port}" in " ".join(found.plan.arguments) or found.plan.gateway


def test_port_that_the_user_set_is_refused_by_name(fake: FakeDeployment, tmp_path: Path) -> None:
    run_chat(fake, "cpu")
    with pytest.raises(EnvironmentUnfitError, match=f"port {fake.port} is that of box, which runs"):
        planned(choice("cpu", "name=desk", f"publish.port={fake.port}"), fake, meminfo(tmp_path))
    other = free_port()
    assert (
        planned(choice("cpu", "name=desk", f"publish.port={other}"), fake, meminfo(tmp_path)).plan.port
        == other
    )


def test_chosen_port_stays_when_the_other_has_gone(fake: FakeDeployment, tmp_path: Path) -> None:
    desk = choice("cpu", "name=desk")
    port = free_port()
    plan = planned(
        desk.__class__(**{**vars(desk), "publish": desk.publish.model_copy(update={"port": port})}),
        fake,
        meminfo(tmp_path),
    ).plan
    releases = Releases(fake.state.create("desk"))
    asked = json.dumps({"profile": "cpu", "deployment": {"name": "desk"}})
    releases.switch(create_release(plan, releases, asked)[0])
    assert planned(desk, fake, meminfo(tmp_path)).plan.hash == plan.hash
    # A port that was set, and is set no more, goes back to the default.
    release = releases.current()
    assert release is not None
    set_before = json.dumps({"profile": "cpu", "deployment": {"publish": {"port": port}}})
    record_asked(release.load(), releases, set_before)
    assert planned(desk, fake, meminfo(tmp_path)).plan.port == 8000


SMI = """#!/bin/sh
case "$1" in --query-gpu=*)
echo "0, NVIDIA H200, 9.0, 580.95.05, 143771, {first}, 33, 120, 192.00, P0, 0"
{second}
;; esac
"""
SECOND = 'echo "1, NVIDIA H200, 9.0, 580.95.05, 143771, 4, 33, 120, 192.00, P0, 0"'


def test_free_gpu_is_chosen(fake: FakeDeployment, tmp_path: Path, machine: Path) -> None:
    run_chat(fake, "h200", "--gpu-memory-utilization", "0.9")
    write_program(machine / "nvidia-smi", SMI.format(first=4, second=SECOND))
    found = planned(choice("h200", "name=desk"), fake, meminfo(tmp_path))
    assert found.plan.gpus is not None
    assert found.plan.gpus.ids == ("1",)
    assert found.shared is None
    named = planned(
        choice("h200", "name=desk", "environment.CUDA_VISIBLE_DEVICES=0"), fake, meminfo(tmp_path)
    )
    assert named.shared is not None
    with pytest.raises(DoesNotFitError, match="next to box"):
        refuse_what_cannot_run(named)


def test_one_gpu_is_shared_as_far_as_it_goes(fake: FakeDeployment, tmp_path: Path, machine: Path) -> None:
    run_chat(fake, "h200", "--gpu-memory-utilization", "0.8")
    write_program(machine / "nvidia-smi", SMI.format(first=4, second=""))
    found = planned(embedder("h200"), fake, meminfo(tmp_path))
    assert found.shared is not None
    assert found.shared.neighbours[0].gpus == ("0",)
    refuse_what_cannot_run(found)
    # The driver reports more than the plan: another program is on this GPU.
    write_program(machine / "nvidia-smi", SMI.format(first=140000, second=""))
    full = planned(embedder("h200"), fake, meminfo(tmp_path))
    assert full.shared is not None
    assert full.shared.free == (143771 - 140000) * 2**20
    assert full.shared.usable == full.shared.free - CONTEXT
    with pytest.raises(DoesNotFitError, match="next to box"):
        refuse_what_cannot_run(full)


def test_plan_for_another_machine_counts_nothing(fake: FakeDeployment, tmp_path: Path, machine: Path) -> None:
    run_chat(fake, "cpu")
    assert planned(choice("h200", "name=desk"), fake, meminfo(tmp_path)).shared is None
    write_program(machine / "nvidia-smi", SMI.format(first=4, second="").replace("143771", "24564"))
    fake.end()
    run_chat(fake, "rtx-5090")
    assert planned(choice("h200", "name=desk"), fake, meminfo(tmp_path)).shared is None
    laptop = meminfo(tmp_path)
    laptop.write_text(f"MemTotal: {32 * 2**20} kB\nMemAvailable: {20 * 2**20} kB\n")
    assert planned(choice("spark", "name=desk"), fake, laptop).shared is None


def test_plan_prints_neighbours_and_json_has_them(
    fake: FakeDeployment, capsys: pytest.CaptureFixture[str]
) -> None:
    run_chat(fake, "cpu", environment={"VLLM_CPU_KVCACHE_SPACE": "1"})
    line = ["plan", "--profile", "cpu", "--name", "desk", "--state-dir", str(fake.state.root)]
    assert run(line) == 0
    said = capsys.readouterr().out
    assert f"next to      box: tiny; 1.0 GiB, port {fake.port}" in said
    assert "left " in said
    assert run([*line, "--json"]) == 0
    shared = checked("plan", capsys.readouterr().out)["shared"]
    assert [each["deployment"] for each in shared["neighbours"]] == ["box"]
    assert shared["both"] is None
    assert run([*line, "--port", str(fake.port)]) == 3
    assert f"port {fake.port} is that of box, which runs" in capsys.readouterr().err
