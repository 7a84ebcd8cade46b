"""Plans of resolved choices: arguments, mounts, devices, address, and equal bytes on every machine."""

import json
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.overrides import with_settings
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.catalog.strict_yaml import parse
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.plan import BindMount, CdiGpus, LaunchPlan
from deckard_deploy.planning.planner import HostPaths, build_plan

PATHS = HostPaths(
    models=PurePosixPath("/m"),
    caches=PurePosixPath("/c"),
    patches=PurePosixPath("/p"),
    deployments=PurePosixPath("/d"),
)
PROFILES = listing.names("profiles")


def planned(profile: str, *settings: str, compat: str | None = None) -> LaunchPlan:
    deployment = with_settings(parse("", source="deckard.yaml"), settings)
    compatibility = library.compatibility(compat) if compat else None
    return build_plan(
        resolve(deployment, profile=library.profile(profile), compatibility=compatibility), PATHS
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_default_plan_of_every_profile(profile: str) -> None:
    plan = planned(profile)
    resolved_profile = library.profile(profile)
    assert plan.profile == plan.deployment == profile
    assert plan.arguments[0].endswith(plan.model)
    assert plan.option("served-model-name") == plan.served_name
    assert len(set(plan.arguments)) >= 10
    assert (plan.gpus is None) == (resolved_profile.hardware.gpu_count == 0 or plan.runtime == "process")
    assert plan.base_url == "http://127.0.0.1:8000/v1"
    assert LaunchPlan.model_validate_json(plan.model_dump_json()) == plan


def test_docker_publishes_on_loopback() -> None:
    plan = planned("spark", "publish.port=9000")
    assert (plan.option("host"), plan.option("port")) == ("0.0.0.0", "8000")
    assert (plan.address, plan.port, plan.container_port) == ("127.0.0.1", 9000, 8000)
    assert plan.healthcheck is not None
    assert "8000" in plan.healthcheck.command[-1]
    assert "9000" not in plan.healthcheck.command[-1]


def test_host_network_listens_on_publish_address() -> None:
    plan = planned(
        "spark", "publish.port=9000", "container.network=host", 'allow_unsafe=["container.network"]'
    )
    assert (plan.option("host"), plan.option("port")) == ("127.0.0.1", "9000")
    assert plan.container_port == 9000


def test_process_plan_has_host_paths_and_no_mounts() -> None:
    plan = planned("cpu", "publish.port=9000")
    assert plan.arguments[0] == "/m/tiny-gemma4"
    assert (plan.option("host"), plan.option("port")) == ("127.0.0.1", "9000")
    assert (plan.mounts, plan.gpus, plan.image, plan.platform, plan.healthcheck) == (
        (),
        None,
        None,
        None,
        None,
    )
    assert plan.environment["VLLM_CACHE_ROOT"] == "/c/vllm-0.19.1-cpu/vllm"


def test_weights_are_read_only_caches_per_engine() -> None:
    plan = planned("spark", "engine=vllm-0.19.1")
    assert plan.mounts[0] == BindMount(source="/m/deckard-31b", target="/models/deckard-31b", read_only=True)
    assert [(mount.source, mount.target, mount.read_only) for mount in plan.mounts[1:]] == [
        ("/c/vllm-0.19.1/vllm", "/home/deckard/.cache/vllm", False),
        ("/c/vllm-0.19.1/triton", "/home/deckard/.triton/cache", False),
        ("/c/vllm-0.19.1/flashinfer", "/home/deckard/.cache/flashinfer", False),
    ]
    assert plan.scratch == ("/tmp", "/home/deckard", "/home/deckard/.cache", "/home/deckard/.triton")
    assert (plan.environment["HOME"], plan.environment["USER"]) == ("/home/deckard", "vllm")


def test_container_runs_as_owner_if_image_allows() -> None:
    owned = PATHS._replace(owner="1000:100")
    spark = resolve(Deployment(), profile=library.profile("spark"))
    cpu = resolve(Deployment(engine="vllm-0.19.1-cpu-docker"), profile=library.profile("cpu"))
    assert build_plan(cpu, owned).user == "1000:100"
    assert build_plan(cpu, PATHS).user is None
    assert build_plan(spark, owned).user is None


def test_drafter_is_mounted_and_one_option() -> None:
    plan = planned("spark", "drafter=deckard-e4b")
    config = plan.option("speculative-config")
    assert config is not None
    assert json.loads(config) == {
        "method": "draft_model",
        "model": "/models/deckard-e4b",
        "num_speculative_tokens": 5,
        "quantization": "modelopt",
    }
    assert plan.mounts[1] == BindMount(source="/m/deckard-e4b", target="/models/deckard-e4b", read_only=True)
    without = planned("spark", "drafter=none")
    assert "--speculative-config" not in without.arguments
    assert all("e4b" not in mount.source for mount in without.mounts)


@pytest.mark.parametrize(
    ("profile", "settings", "count"),
    [
        ("spark", [], "all"),
        ("b200", [], 1),
        ("b200", ["tensor-parallel-size=2"], 2),
        ("b200", ["tensor-parallel-size=2", "pipeline-parallel-size=2"], 4),
        ("rtx-5090", [], 1),
    ],
)
def test_every_rank_has_a_gpu(profile: str, settings: list[str], count: int | str) -> None:
    gpus = planned(profile, *settings).gpus
    assert gpus is not None
    assert gpus.count == count


UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"


@pytest.mark.parametrize(("chosen", "ids"), [("3", ("3",)), ("3,5", ("3", "5")), (UUID, (UUID,))])
def test_chosen_gpus_are_reserved(chosen: str, ids: tuple[str, ...]) -> None:
    plan = planned("b200", f"environment.CUDA_VISIBLE_DEVICES={chosen}")
    assert plan.gpus is not None
    assert (plan.gpus.ids, plan.gpus.count) == (ids, len(ids))
    assert "CUDA_VISIBLE_DEVICES" not in plan.environment
    assert LaunchPlan.model_validate_json(plan.model_dump_json()) == plan
    # A process sees the host's own numbers.
    host = planned("cpu", f"environment.CUDA_VISIBLE_DEVICES={chosen}")
    assert (host.gpus, host.environment["CUDA_VISIBLE_DEVICES"]) == (None, chosen)


@pytest.mark.parametrize("chosen", ["-1", "3,", "3,3", "all", "3 ", "GPU-1", "²", "MIG-1"])
def test_wrong_gpu_ids_raise(chosen: str) -> None:
    with pytest.raises(BadInputError, match=r"CUDA_VISIBLE_DEVICES .*: numbers or UUIDs"):
        planned("b200", f"environment.CUDA_VISIBLE_DEVICES={chosen}")


def test_fewer_chosen_gpus_than_ranks_raise() -> None:
    with pytest.raises(BadInputError, match="names 1 GPU, and 2 ranks"):
        planned("b200", "environment.CUDA_VISIBLE_DEVICES=3", "tensor-parallel-size=2")


def test_platform_follows_profile() -> None:
    assert (planned("spark").platform, planned("b200").platform) == ("linux/arm64", "linux/amd64")


def test_compat_plan_matches_model_card() -> None:
    plan = planned("spark", compat="seed")
    assert plan.mounts == (
        BindMount(source="~/models/deckard-31b", target="/models/deckard", read_only=False),
    )
    assert plan.arguments[:3] == ("/models/deckard", "--served-model-name", "deckard-31b")
    assert not {"--host", "--port", "--load-format"} & set(plan.arguments)
    assert (plan.container_name, plan.healthcheck, plan.platform) == ("vllm-deckard-31b", None, None)
    assert (plan.address, plan.base_url) == ("0.0.0.0", "http://127.0.0.1:8000/v1")


HASHES = """
import json
from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.planning.planner import build_plan
names = listing.names("profiles")
print(json.dumps({n: build_plan(resolve(Deployment(), profile=library.profile(n))).hash for n in names}))
"""


def hashes(folder: Path, **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if key in ("PATH", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, "-c", HASHES],
        env=clean | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_hash_is_equal_on_every_machine(tmp_path: Path) -> None:
    here = hashes(
        Path(__file__).parents[3],
        PYTHONHASHSEED="0",
        LC_ALL="C",
        TZ="UTC",
        HOME="/root",
        VLLM_CACHE_ROOT="/x",
    )
    there = hashes(
        tmp_path, PYTHONHASHSEED="4242", LC_ALL="tr_TR.UTF-8", TZ="Asia/Kathmandu", HOME=str(tmp_path)
    )
    assert here == there
    assert len(set(json.loads(here).values())) == len(PROFILES)


@pytest.mark.parametrize(
    "setting",
    [
        "max-num-seqs=9",
        "publish.port=9",
        "environment.VLLM_LOGGING_LEVEL=DEBUG",
        "container.shm_size=1g",
        "image=x:1",
    ],
)
def test_every_setting_changes_the_hash(setting: str) -> None:
    assert planned("spark", setting).hash != planned("spark").hash


def test_order_of_settings_keeps_the_hash() -> None:
    one = planned("spark", 'limit-mm-per-prompt={"image": 1, "video": 0}', "environment.OMP_NUM_THREADS=1")
    two = planned("spark", 'limit-mm-per-prompt={"video": 0, "image": 1}', "environment.OMP_NUM_THREADS=1")
    assert one.hash == two.hash


@pytest.mark.parametrize(
    ("settings", "devices"),
    [
        (["gpu_driver=cdi"], ("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
        (
            ["gpu_driver=cdi", "environment.CUDA_VISIBLE_DEVICES=3,5"],
            ("nvidia.com/gpu=3", "nvidia.com/gpu=5"),
        ),
    ],
)
def test_cdi_names_each_gpu(settings: list[str], devices: tuple[str, ...]) -> None:
    gpus = planned("h200", "tensor-parallel-size=2", *settings).gpus
    assert isinstance(gpus, CdiGpus)
    assert gpus.devices == devices


def test_cdi_of_unified_machine_is_all() -> None:
    gpus = planned("spark", "gpu_driver=cdi").gpus
    assert isinstance(gpus, CdiGpus)
    assert gpus.devices == ("nvidia.com/gpu=all",)
    # No plan of an earlier version changes: a new field would change the hash of every plan.
    assert planned("spark", "gpu_driver=nvidia") == planned("spark")


def test_rootless_containers_run_as_root() -> None:
    deployment = with_settings(parse("", source="deckard.yaml"), ["engine=vllm-0.19.1-cpu-docker"])
    resolved = resolve(deployment, profile=library.profile("cpu"))
    plan = build_plan(resolved, PATHS._replace(owner="1000:1000", rootless=True))
    assert plan.gateway is not None
    assert (plan.user, plan.gateway.user) == ("0:0", "0:0")
    plan = build_plan(resolved, PATHS._replace(owner="1000:1000"))
    assert plan.gateway is not None
    assert (plan.user, plan.gateway.user) == ("1000:1000", "1000:1000")
