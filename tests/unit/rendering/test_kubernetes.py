"""Manifests that Kubernetes' own schemas accept, as confined as the compose file."""

import copy
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no stubs
import pytest
import yaml

from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from deckard_deploy.rendering.kubernetes import (
    ACCESS_LABEL,
    Cluster,
    manifests,
    render_kubernetes,
    resource_name,
)
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


CLUSTER = Cluster(
    claim="weights", admitted=("ingress-nginx", "monitoring"), gpu_products=("NVIDIA-B200",), runtime_class="nvidia",
    cpu="8", memory="64Gi", pull_secret="mirror",
)  # fmt: skip


def pod_of(plan: Any, cluster: Cluster = Cluster()) -> dict[str, Any]:  # noqa: B008  a constant
    return dict(manifests(plan, cluster)[0]["spec"]["template"]["spec"])


@pytest.mark.parametrize("profile", PROFILES)
def test_no_volume_is_of_the_host(profile: str) -> None:
    """Pod Security "baseline" forbids hostPath, and a host's folder exists on one node only."""
    plan = built_in(profile)
    volumes = pod_of(plan)["volumes"]
    assert not [volume for volume in volumes if "hostPath" in volume]
    assert {"name": "state", "persistentVolumeClaim": {"claimName": resource_name(plan)}} in volumes
    for volume in volumes:
        assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""})
    paths = {mount["mountPath"]: mount.get("subPath") for mount in container(plan)["volumeMounts"]}
    for mount in plan.all_mounts:
        assert f"/srv/deckard/{paths[mount.target]}" == mount.source


def test_path_outside_of_claim_raises() -> None:
    with pytest.raises(ValueError, match="is not in /data, which the claim holds"):
        render_kubernetes(built_in("spark"), Cluster(root="/data"))


def test_files_of_claim_are_checked_before_start() -> None:
    """A missing file would be mounted as a new folder, because subPath makes it."""
    resolved = choice("h200", "engine=vllm-0.32.0")
    plan = with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches)
    (check,) = pod_of(plan)["initContainers"]
    assert len(plan.built) == 2
    assert check["args"] == [word for mount in plan.built for word in (mount.target, mount.sha256)]
    assert [mount["mountPath"] for mount in check["volumeMounts"]] == [mount.target for mount in plan.built]


def test_check_program_finds_another_file(tmp_path: Path) -> None:
    (check,) = pod_of(built_in("spark"))["initContainers"]
    program = check["command"][2].replace("$$", "$")
    file = tmp_path / "x"
    file.write_text("x")
    right = hashlib.sha256(b"x").hexdigest()
    for path, digest, code in (
        (file, right, 0),
        (file, 64 * "0", 1),
        (tmp_path, right, 1),
        (tmp_path / "y", right, 1),
    ):
        done = subprocess.run([sys.executable, "-c", program, path, digest], capture_output=True, check=False)
        assert done.returncode == code


def test_cluster_settings_are_rendered() -> None:
    plan = built_in("b200")
    for manifest in manifests(plan, CLUSTER):
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    pod = pod_of(plan, CLUSTER)
    assert (pod["runtimeClassName"], pod["imagePullSecrets"]) == ("nvidia", [{"name": "mirror"}])
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == [
        {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-B200"]}
    ]
    resources = pod["containers"][0]["resources"]
    assert resources["limits"] == {"memory": "64Gi", "nvidia.com/gpu": "1"}
    assert resources["requests"] == {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"}
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "weights"}} in pod["volumes"]
    assert manifests(plan, CLUSTER)[2]["spec"]["ingress"][0]["from"] == [
        {"podSelector": {"matchLabels": {ACCESS_LABEL: "b200"}}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
    ]


def test_changed_configuration_rolls_the_pod() -> None:
    plan = built_in("spark")
    assert plan.gateway is not None
    tls = plan.model_copy(update={"gateway": plan.gateway.model_copy(update={"tls": True})})

    def annotations(plan: Any) -> dict[str, str]:
        return dict(manifests(plan)[0]["spec"]["template"]["metadata"]["annotations"])

    assert annotations(plan) == annotations(plan)
    assert annotations(plan)["checksum/nginx.conf"] != annotations(tls)["checksum/nginx.conf"]


def test_comment_says_how_prometheus_gets_its_key() -> None:
    assert "deckard-spark-metrics --from-file=key=keys/own.key" in render_kubernetes(built_in("spark"))


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
    made = container(with_text("$(HOME) $x $$").model_copy(update={"mounts": (), "patches": ()}))
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
