"""Settings for an earlier vLLM keep their meaning on a later one, or raise with advice."""

import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy.catalog import library, overrides
from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.translation import migrate_options, release_changes
from deckard_deploy.errors import BadInputError

NEW = "vllm-0.32.0"
VARIABLE = "VLLM_NVFP4_GEMM_BACKEND"


def resolved(*settings: str, profile: str = "spark") -> Resolved:
    deployment = overrides.with_settings(overrides.read_deployment(None), settings)
    return resolve(deployment, profile=library.profile(profile))


@pytest.mark.parametrize(
    ("value", "options"),
    [
        ("marlin", {"linear-backend": "marlin", "moe-backend": "marlin"}),
        ("flashinfer-cutlass", {"linear-backend": "flashinfer_cutlass", "moe-backend": "flashinfer_cutlass"}),
        ("flashinfer-cudnn", {"linear-backend": "flashinfer_cudnn"}),  # no such moe backend
    ],
)
def test_a_variable_becomes_options(value: str, options: dict[str, str]) -> None:
    found = resolved(f"engine={NEW}", f"environment.{VARIABLE}={value}")
    assert VARIABLE not in found.environment
    assert {name: found.serve.get(name) for name in options} == options
    assert ("moe-backend" in found.serve) == ("moe-backend" in options)


def test_variable_stays_on_release_that_reads_it() -> None:
    found = resolved("engine=vllm-0.19.1", f"environment.{VARIABLE}=marlin")
    assert found.environment[VARIABLE] == "marlin"
    assert "linear-backend" not in found.serve


def test_every_translation_fits_its_schema() -> None:
    schema, known = option_schema(NEW), release_changes(NEW)
    for variable, by_option in known.variables.items():
        assert variable not in schema.environment
        for option, values in by_option.items():
            for value in values.values():
                schema.check_option(option, value)
    for name, default in known.defaults.items():
        schema.check_option(name, default)
        assert schema.options[name].default != default
    assert not set(known.removed_options) & set(schema.options)
    assert not set(known.removed_variables) & set(schema.environment)


def test_changed_default_is_rendered_unless_set() -> None:
    assert migrate_options(NEW, {}, {})[0] == {"gpu-memory-utilization": 0.9}
    assert migrate_options(NEW, {"gpu-memory-utilization": 0.7}, {})[0] == {"gpu-memory-utilization": 0.7}
    assert migrate_options("vllm-0.19.1", {}, {}) == ({}, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["calculate-kv-scales=true"],
            "vllm-0.32.0 has no option --calculate-kv-scales any more: the scales",
        ),
        (["environment.VLLM_USE_FLASHINFER_MOE_FP4=1"], "any more: use serve.moe-backend"),
        ([f"environment.{VARIABLE}=marlinn"], "did you mean 'marlin'?"),
        ([f"environment.{VARIABLE}=marlin", "linear-backend=cutlass"], "keep serve.linear-backend"),
        (["environment.VLLM_RPC_TIMEOUT=5"], "nothing in vLLM 0.32.0 reads"),
    ],
)
def test_removed_settings_raise_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        resolved(f"engine={NEW}", *settings)
    assert message in caught.value.message


def compare(old: str, new: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[3] / "scripts" / "compare_engines.py"
    return subprocess.run([sys.executable, script, old, new], capture_output=True, text=True, check=False)


def test_compare_engines_passes_for_upgrade() -> None:
    done = compare("vllm-0.19.1", NEW)
    assert done.returncode == 0, done.stdout
    assert "  variable removed: VLLM_NVFP4_GEMM_BACKEND\n" in done.stdout
    assert "  default changed: --gpu-memory-utilization 0.9 -> 0.92\n" in done.stdout


def test_compare_engines_fails_for_downgrade() -> None:
    done = compare(NEW, "vllm-0.19.1")  # the files cover upgrades only
    assert done.returncode == 1
    assert "! default changed: --gpu-memory-utilization 0.92 -> 0.9\n" in done.stdout
