"""Replicas: the parts of a machine, what a replica and a front have of the user's choice, and impossible sizes."""

import json
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.specs import Deployment, Publish
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.plan import ChosenGpus
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from deckard_deploy.planning.replicas import as_front, replica_choice, shares
from tests.support.sample_choices import choice


def gpus(resolved: Resolved, here: int | None = None) -> list[str]:
    return [",".join(share.gpus) for share in shares(resolved, here)]


def test_each_replica_has_gpus_of_its_own() -> None:
    assert gpus(choice("b200", "replicas=3")) == ["0", "1", "2"]
    assert gpus(choice("b200", "replicas=2", "tensor-parallel-size=2")) == ["0,1", "2,3"]
    assert gpus(choice("b200", "replicas=2", "environment.CUDA_VISIBLE_DEVICES=4,5,6")) == ["4", "5"]


def test_all_counts_gpus_of_machine_or_profile() -> None:
    assert gpus(choice("b200", "replicas=all")) == list("01234567")
    assert gpus(choice("b200", "replicas=all"), here=4) == list("0123")
    assert gpus(choice("b200", "replicas=all", "tensor-parallel-size=4")) == ["0,1,2,3", "4,5,6,7"]
    assert gpus(choice("b200", "replicas=all", "environment.CUDA_VISIBLE_DEVICES=2,3"), here=8) == ["2", "3"]


def test_engines_without_gpus_are_counted() -> None:
    assert [share.number for share in shares(choice("cpu", "replicas=2"))] == [1, 2]


@pytest.mark.parametrize(
    ("profile", "settings", "said"),
    [
        ("b200", ("replicas=9",), "needs 9 GPUs, and a machine of b200 has 8"),
        ("b200", ("replicas=5", "tensor-parallel-size=2"), "(--tensor-parallel-size 2) needs 10 GPUs"),
        ("spark", ("replicas=2",), "needs 2 GPUs, and a machine of spark has 1"),
        ("cpu", ("replicas=all",), "counts GPUs"),
        ("cpu", ("replicas=2", "gateway=off"), "gateway is off"),
        ("b200", ("replicas=2", "container.network=host"), "one port"),
        ("b200", ("data-parallel-size=16",), "--data-parallel-size 16 needs 16 GPUs, and b200 has 8"),
        (
            "b200",
            ("replicas=2", "tensor-parallel-size=3"),
            "does not divide deckard-31b's 32 attention heads",
        ),
    ],
)
def test_impossible_sizes_are_refused(profile: str, settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInputError) as refused:
        choice(profile, *settings)
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("profile", "settings", "here", "said"),
    [
        ("b200", ("replicas=8",), 4, "needs 8, and this machine has 4"),
        ("b200", ("replicas=all", "tensor-parallel-size=8"), 4, "needs 8, and this machine has 4"),
        ("b200", ("replicas=3", "environment.CUDA_VISIBLE_DEVICES=1,2"), 8, "CUDA_VISIBLE_DEVICES names 2"),
        ("rtx-5090", ("replicas=all",), None, "is not known"),
    ],
)
def test_sizes_that_this_machine_has_not_are_refused(
    profile: str, settings: tuple[str, ...], here: int | None, said: str
) -> None:
    resolved = choice(profile, *settings)
    with pytest.raises(BadInputError) as refused:
        shares(resolved, here)
    assert said in refused.value.message


def wish(**changes: object) -> Resolved:
    deployment = Deployment(replicas=2, **changes)  # type: ignore[arg-type]  # any field of it
    resolved = resolve(deployment, profile=library.profile("b200"))
    asked = {"deployment": deployment.model_dump(mode="json", exclude_defaults=True)}
    return replace(resolved, asked=json.dumps(asked))


def test_replica_differs_by_name_gpu_port_and_caches_alone() -> None:
    resolved = wish()
    one, two = (build_plan(replica_choice(resolved, share)) for share in shares(resolved))
    assert (one.deployment, two.deployment) == ("b200-1", "b200-2")
    assert (one.port, two.port) == (8001, 8002)
    assert (one.gpus, two.gpus) == (ChosenGpus(ids=("0",)), ChosenGpus(ids=("1",)))
    caches = [{mount.source for mount in plan.mounts if not mount.read_only} for plan in (one, two)]
    assert caches[0]
    assert caches[0].isdisjoint(caches[1])
    assert one.arguments == two.arguments


def test_address_of_front_is_not_one_of_replicas() -> None:
    exposed = wish(publish=Publish(expose="0.0.0.0", port=9000))
    plan = build_plan(replica_choice(exposed, shares(exposed)[0], port=8001))
    assert (plan.address, plan.gateway and plan.gateway.exposed) == ("127.0.0.1", False)
    same = build_plan(replica_choice(wish(), shares(wish())[0]))
    assert plan.hash == same.hash
    assert (
        replica_choice(exposed, shares(exposed)[0]).asked == replica_choice(wish(), shares(wish())[0]).asked
    )


def test_front_is_the_same_before_another_engine() -> None:
    before, after = wish(), wish(engine="vllm-0.19.1", drafter="none", serve={"max-num-seqs": 8})
    assert as_front(build_plan(before)).hash == as_front(build_plan(after)).hash
    moved = wish(publish=Publish(port=9000))
    assert as_front(build_plan(moved)).hash != as_front(build_plan(before)).hash


def test_replica_in_a_container_listens_on_a_socket_that_its_front_sees() -> None:
    resolved = wish()
    one, two = (
        build_plan(replica_choice(resolved, share), DEFAULT_PATHS._replace(sockets=True))
        for share in shares(resolved)
    )
    assert (one.option("uds"), two.option("uds")) == (
        "/run/deckard/replicas/1/vllm.sock",
        "/run/deckard/replicas/2/vllm.sock",
    )
    assert (one.option("host"), one.entrypoint[-1]) == (None, one.option("uds"))
    assert one.healthcheck
    assert str(one.option("uds")) in one.healthcheck.command[-1]
    (mount,) = [mount for mount in two.mounts if mount.target.startswith("/run")]
    assert mount.source == "/srv/deckard/deployments/b200/replicas/2"
    front = as_front(build_plan(wish()), PurePosixPath("/srv/deckard/deployments/b200/replicas"))
    assert [(each.source, each.target) for each in front.mounts] == [
        ("/srv/deckard/deployments/b200/replicas", "/run/deckard/replicas")
    ]


def test_other_engine_of_the_machine_keeps_its_address() -> None:
    resolved = choice("b200")
    assert build_plan(resolved, DEFAULT_PATHS._replace(sockets=True)).hash == build_plan(resolved).hash


def test_role_leaves_hash_of_other_plans_alone() -> None:
    plan = build_plan(choice("b200"))
    assert "role" not in plan.model_dump(mode="json")
    assert plan.model_copy(update={"role": "replica"}).hash != plan.hash


def test_port_beyond_the_last_is_refused() -> None:
    late = wish(publish=Publish(port=65534))
    with pytest.raises(BadInputError, match="replica 2 would listen on port 65536"):
        replica_choice(late, shares(late)[1])
