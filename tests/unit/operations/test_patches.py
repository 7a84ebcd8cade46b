"""Which patches a plan gets."""

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

import pytest
from pydantic import JsonValue

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import LM_HEAD_NAMES, Deployment, LmHead, Quantization
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.patches import needed_plugin, with_needed_patches
from deckard_deploy.patching import plugin, request_filter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan

BY_HAND: dict[str, JsonValue] = {"method": "draft_model", "model": "/models/x", "num_speculative_tokens": 3}


@pytest.mark.parametrize(
    ("deployment", "names"),
    [
        (Deployment(), []),
        (Deployment(engine="vllm-0.19.1"), ["serving_chat", "reasoning", "modelopt"]),
        (Deployment(drafter="deckard-e4b"), ["eagle", "serving_chat", "reasoning", "modelopt"]),
        # Without the patch the target's own KV cache would be overwritten, and nothing would say so.
        (
            Deployment(engine="vllm-0.19.1", serve={"speculative-config": BY_HAND}),
            ["eagle", "serving_chat", "reasoning", "modelopt"],
        ),
    ],
)
def test_plan_gets_needed_patches(deployment: Deployment, names: list[str]) -> None:
    resolved = resolve(deployment, profile=library.profile("spark"))
    plan = with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches)
    assert [patch.name for patch in plan.patches] == names


def test_compat_plan_gets_no_files_of_ours() -> None:
    resolved = resolve(
        Deployment(), profile=library.profile("spark"), compatibility=library.compatibility("seed")
    )
    plan = with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches)
    assert plan.built == ()
    assert "--middleware" not in plan.arguments


@pytest.mark.parametrize("gateway", ["nginx", "off"])
def test_process_finds_patches_before_filter(gateway: Literal["nginx", "off"]) -> None:
    resolved = resolve(Deployment(gateway=gateway), profile=library.profile("cpu"))
    paths = DEFAULT_PATHS._replace(nginx=PurePosixPath("/usr/sbin/nginx") if gateway == "nginx" else None)
    plan = with_needed_patches(build_plan(resolved, paths), resolved, paths.patches)
    assert plan.request_filter
    overlay, folder = plan.environment["PYTHONPATH"].split(":")
    assert overlay.endswith("/overlay")
    assert PurePosixPath(folder) / request_filter.FILE == PurePosixPath(plan.request_filter.source)
    name = "KeyedFilter" if gateway == "nginx" else "Filter"
    assert plan.arguments[-2:] == ("--middleware", f"deckard_request_filter.{name}")


def modern(**environment: str) -> LaunchPlan:
    resolved = resolve(
        Deployment(engine="vllm-0.32.0", environment=dict(environment)), profile=library.profile("spark")
    )
    return with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches)


@pytest.mark.parametrize(
    ("profile", "engine", "quantization", "needed"),
    [
        ("cpu", "vllm-0.32.0-cpu", "nvfp4", True),
        ("cpu", "vllm-0.32.0-cpu", "compressed-tensors", True),
        ("cpu", "vllm-0.32.0-cpu", "gptq", False),
        ("cpu", "vllm-0.32.0-cpu", "none", False),
        ("h200", "vllm-0.32.0", "nvfp4", False),
        ("h200", "vllm-0.32.0", "compressed-tensors", False),
        ("h200", "vllm-0.32.0", "nvfp4_awq", True),
    ],
)
def test_plugin_brings_nvfp4_to_a_cpu(
    profile: str, engine: str, quantization: Quantization, *, needed: bool
) -> None:
    """`vllm serve` on a CPU ended with "Failed to find a kernel that can implement the NVFP4 linear layer"."""
    found = resolve(Deployment(engine=engine, drafter=None), profile=library.profile(profile))
    resolved = replace(found, model=found.model.model_copy(update={"quantization": quantization}))
    assert (needed_plugin(resolved) is not None) is needed


def test_new_engine_gets_plugin_on_pythonpath() -> None:
    plan = modern()
    assert plan.plugin
    assert (plan.patches, plan.plugin.sha256) == ((), plugin.wheel_sha256("nvfp4-awq"))
    assert plan.plugin.target == f"/opt/deckard/{plugin.WHEEL}"
    assert plan.environment["PYTHONPATH"] == f"{plan.plugin.target}:/opt/deckard"
    assert plan.environment["VLLM_PLUGINS"] == plugin.ENTRY_POINT
    assert plan.plugin in plan.all_mounts
    assert plan.plugin.read_only


@pytest.mark.parametrize("form", ["fp8", "nvfp4"])
@pytest.mark.parametrize("quantization", ["nvfp4_awq", "none"])
def test_lm_head_brings_the_plugin_that_quantizes_it(form: LmHead, quantization: Quantization) -> None:
    found = resolve(Deployment(lm_head=form, drafter="none"), profile=library.profile("h200"))
    resolved = replace(found, model=found.model.model_copy(update={"quantization": quantization}))
    plan = with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches)
    assert plan.plugin
    assert plan.plugin.sha256 == plugin.wheel_sha256(LM_HEAD_NAMES[form])
    assert plan.lm_head == form
    assert plan.environment["VLLM_PLUGINS"] == plugin.ENTRY_POINT


@pytest.mark.parametrize("value", ["", "lora_filesystem_resolver"])
def test_environment_without_plugin_is_refused(value: str) -> None:
    with pytest.raises(BadInputError, match=r"VLLM_PLUGINS is .* which turns off plugin deckard_nvfp4_awq"):
        modern(VLLM_PLUGINS=value)


def test_environment_with_plugin_is_kept() -> None:
    assert (
        modern(VLLM_PLUGINS="other,deckard_nvfp4_awq").environment["VLLM_PLUGINS"]
        == "other,deckard_nvfp4_awq"
    )


def test_supported_format_needs_no_plugin() -> None:
    resolved = resolve(Deployment(engine="vllm-0.32.0"), profile=library.profile("spark"))
    plain = replace(resolved, model=resolved.model.model_copy(update={"quantization": "nvfp4"}))
    plan = with_needed_patches(build_plan(plain), plain, DEFAULT_PATHS.patches)
    assert plan.plugin is None
    assert plan.environment["PYTHONPATH"] == "/opt/deckard"  # the filter of requests alone
