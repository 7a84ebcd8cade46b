"""Manifests that Kubernetes' own schemas accept, as confined as the compose file."""

import copy
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no stubs
import pytest
import yaml

from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from deckard_deploy.rendering.kubernetes import ACCESS_LABEL, manifests, render_kubernetes, resource_name
from tests.support.sample_choices import choice
from tests.support.sample_plans import PROFILES, built_in, with_text

VERSION = "1.30"  # the oldest Kubernetes that must accept the manifests


def container(plan: Any) -> dict[str, Any]:
    return dict(manifests(plan)[0]["spec"]["template"]["spec"]["containers"][0])


def gateway(plan: Any) -> dict[str, Any]:
    return dict(manifests(plan)[0]["spec"]["template"]["spec"]["containers"][1])


@pytest.mark.parametrize("profile", PROFILES)
def test_manifests_are_valid_and_round_trip(profile: str) -> None:
    plan = built_in(profile)
    for manifest in manifests(plan):
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    assert list(yaml.safe_load_all(render_kubernetes(plan))) == manifests(plan)


def test_control_wrong_key_fails_validation() -> None:
    wrong = copy.deepcopy(manifests(built_in("spark"))[0])
    wrong["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("profile", PROFILES)
def test_pod_is_confined(profile: str) -> None:
    plan = built_in(profile)
    deployment, _, policy, _ = manifests(plan)
    pod = deployment["spec"]["template"]["spec"]
    for made in pod["containers"]:
        assert (
            made["securityContext"].items()
            >= {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }.items()
        )
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert {"hostNetwork", "hostIPC", "hostPID"} & set(pod) == set()
    assert policy["spec"]["egress"] == []
    assert policy["spec"]["ingress"][0]["from"] == [
        {"podSelector": {"matchLabels": {ACCESS_LABEL: plan.deployment}}}
    ]


def test_only_caches_may_be_created() -> None:
    """A pod with a missing folder never starts, and only `up` creates the caches."""
    plan = built_in("spark")
    kinds = {
        volume["hostPath"]["path"]: volume["hostPath"]["type"]
        for volume in manifests(plan)[0]["spec"]["template"]["spec"]["volumes"]
        if "hostPath" in volume
    }
    assert kinds == {
        **{mount.source: "Directory" if mount.read_only else "DirectoryOrCreate" for mount in plan.mounts},
        **{patch.source: "File" for patch in plan.patches},
    }
    assert "`deckard-deploy pull` and `deckard-deploy patches build` make it there" in render_kubernetes(plan)
    resolved = choice("spark", "engine=vllm-0.32.0")
    plugged = render_kubernetes(with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches))
    assert "`deckard-deploy pull` and `deckard-deploy patches wheel` make it there" in plugged


def test_container_runs_the_plan() -> None:
    plan = built_in("spark")
    made = container(plan)
    words = ["127.0.0.1" if word == "0.0.0.0" else word for word in plan.arguments]
    assert (made["command"], made["args"]) == (list(plan.entrypoint), words)
    assert made["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    places = {mount["mountPath"]: mount.get("readOnly") for mount in made["volumeMounts"]}
    assert {
        mount.target: mount.read_only for mount in (*plan.mounts, *plan.patches)
    }.items() <= places.items()
    assert "/dev/shm" in places
    assert set(plan.scratch) <= set(places)


def test_only_the_gateway_is_reached() -> None:
    plan = built_in("spark")
    _, service, policy, config = manifests(plan)
    words = container(plan)["args"]
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert "ports" not in container(plan)
    assert gateway(plan)["ports"] == [
        {"name": service["spec"]["ports"][0]["targetPort"], "containerPort": 8080}
    ]
    assert policy["spec"]["ingress"][0]["ports"] == [{"port": 8080}]
    text = config["data"]["nginx.conf"]
    assert 'set $vllm "127.0.0.1:8000";' in text
    assert "resolver" not in text
    assert '"~^local [01]? 1$" pass;' not in text  # a Host header does not prove which pod sends a request


def test_secret_is_referenced_by_name_only() -> None:
    plan = built_in("spark")
    pod = manifests(plan)[0]["spec"]["template"]["spec"]
    assert {"name": "access", "secret": {"secretName": "deckard-spark-access", "defaultMode": 0o444}} in pod[
        "volumes"
    ]
    seen = {one["name"]: {mount["name"] for mount in one["volumeMounts"]} for one in pod["containers"]}
    assert "access" in seen["gateway"]
    assert "access" not in seen["vllm"]
    assert {manifest["kind"] for manifest in manifests(plan)} == {
        "Deployment", "Service", "NetworkPolicy", "ConfigMap"
    }  # fmt: skip


def test_tls_adds_certificate_and_https_probes() -> None:
    plan = built_in("spark")
    assert plan.gateway is not None
    plan = plan.model_copy(update={"gateway": plan.gateway.model_copy(update={"tls": True})})
    assert "--from-file=certificate.pem --from-file=certificate.key" in render_kubernetes(plan)
    for probe in ("livenessProbe", "readinessProbe"):
        assert gateway(plan)[probe]["httpGet"]["scheme"] == "HTTPS"


def test_engine_probes_do_not_pass_the_gateway() -> None:
    """A full or dead gateway must not end the engine: readiness is the gateway's, life is the engine's own."""
    plan = built_in("spark")
    assert plan.healthcheck is not None
    made = container(plan)
    for probe in ("livenessProbe", "startupProbe"):
        assert made[probe]["exec"]["command"] == list(plan.healthcheck.command)
        assert "httpGet" not in made[probe]
    assert made["livenessProbe"]["periodSeconds"] * made["livenessProbe"]["failureThreshold"] >= 180
    assert gateway(plan)["readinessProbe"]["httpGet"]["path"] == "/v1/health/ready"
    assert gateway(plan)["livenessProbe"]["httpGet"]["path"] == "/v1/health/live"


def test_yaml_is_readable() -> None:
    text = render_kubernetes(built_in("spark"))
    assert "&id" not in text
    assert "\n    events {\n" in text


def test_dollars_are_escaped() -> None:
    made = container(with_text("$(HOME) $x $$"))
    assert made["args"][-1] == "$$(HOME) $$x $$$$"
    assert {"name": "NOTE", "value": "$$(HOME) $$x $$$$"} in made["env"]


def test_gpu_request_equals_ranks() -> None:
    plan = build_plan(choice("b200", "tensor-parallel-size=2"))
    assert container(plan)["resources"]["requests"] == {"nvidia.com/gpu": "2"}


def test_chosen_gpus_raise() -> None:
    with pytest.raises(ValueError, match="Kubernetes chooses the GPUs itself"):
        render_kubernetes(build_plan(choice("b200", "environment.CUDA_VISIBLE_DEVICES=3")))


def test_resource_name_is_valid_for_services() -> None:
    plan = built_in("spark").model_copy(update={"deployment": "my_box.2-" + "x" * 60})
    assert len(resource_name(plan)) <= 63
    assert resource_name(plan).startswith("deckard-my-box-2-xx")
    assert set(resource_name(plan)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize("change", [{"network": "host"}, {"ipc": "host"}])
def test_plan_on_host_network_or_ipc_raises(change: dict[str, str]) -> None:
    plan = built_in("spark")
    plan = plan.model_copy(update={"container": plan.container.model_copy(update=change)})
    with pytest.raises(ValueError, match="confined"):
        render_kubernetes(plan)
