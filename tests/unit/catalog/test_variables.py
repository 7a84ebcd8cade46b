"""Environment variables of the libraries under vLLM: accepted, refused with the reason, or accepted with the cost."""

import pytest

from deckard_deploy.catalog import library, safety
from deckard_deploy.catalog.overrides import with_settings
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.strict_yaml import parse
from deckard_deploy.catalog.variables import known_variables
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.planner import build_plan

# One of each library and of each way to find its name: extracted, documented, or in an engine's list.
ACCEPTED = [
    "CUDA_DEVICE_ORDER=PCI_BUS_ID",
    "CUDA_MODULE_LOADING=EAGER",
    "CUDA_CACHE_MAXSIZE=4294967296",
    "CUDA_DEVICE_MAX_CONNECTIONS=1",
    "CUBLAS_WORKSPACE_CONFIG=:4096:8",
    "NVIDIA_TF32_OVERRIDE=0",
    "NCCL_CUMEM_ENABLE=0",
    "NCCL_NVLS_ENABLE=0",
    "NCCL_ALGO=Ring",
    "NCCL_IB_HCA=mlx5_0",
    "NCCL_IGNORE_CPU_AFFINITY=1",
    "NCCL_DEBUG_SUBSYS=INIT",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING=1",
    "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC=1200",
    "TORCH_CPP_LOG_LEVEL=INFO",
    "TORCHINDUCTOR_COMPILE_THREADS=4",
    "TORCHDYNAMO_VERBOSE=1",
    "PYTORCH_ALLOC_CONF=expandable_segments:True",
    "GLOO_SOCKET_IFNAME=eth0",
    "TP_SOCKET_IFNAME=eth0",
    "TRITON_CACHE_DIR=/tmp/triton",
    "TRITON_PRINT_AUTOTUNING=1",
    "FLASHINFER_CUDA_ARCH_LIST=12.1a",
    "FLASHINFER_JIT_VERBOSE=1",
    "FLASHINFER_NVCC_THREADS=2",
    "FLASHINFER_WORKSPACE_BASE=/tmp/fi",
    "OMP_PROC_BIND=close",
    "KMP_BLOCKTIME=1",
    "MKL_NUM_THREADS=8",
    "OPENBLAS_NUM_THREADS=1",
    "GOMP_CPU_AFFINITY=0-7",
    "NUMBA_NUM_THREADS=4",
    "TZ=Europe/Berlin",
    "LANG=C.UTF-8",
    "LC_ALL=C",
    "MALLOC_ARENA_MAX=2",
    "HTTPS_PROXY=http://proxy:3128",
    "no_proxy=127.0.0.1",
    "SSL_CERT_FILE=/tmp/ca.pem",
    "PYTHONUNBUFFERED=1",
    "PYTHONHASHSEED=0",
    "TOKENIZERS_PARALLELISM=false",
    "HF_HUB_DISABLE_XET=1",
    "MAX_JOBS=4",
    "RAY_ADDRESS=auto",
    "UCX_TLS=tcp",
    "OTEL_SERVICE_NAME=x",
    "VLLM_CACHE_ROOT=/tmp/vllm",
    "HF_HOME=/tmp/hf",
    "CC=gcc",
]


def resolved(*settings: str, profile: str = "spark") -> Resolved:
    deployment = with_settings(parse("", source="deckard.yaml"), settings)
    return resolve(deployment, profile=library.profile(profile))


def refusal(*settings: str, profile: str = "spark") -> str:
    with pytest.raises(BadInputError) as caught:
        resolved(*settings, profile=profile)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("setting", ACCEPTED)
def test_variable_of_a_library_is_accepted(setting: str):
    name, _, value = setting.partition("=")
    assert resolved(f"environment.{name}={value}").environment[name] == value


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("PYTHONPATH=/tmp", "the plan sets it"),
        ("PATH=/tmp", "programs would not be found"),
        ("HOME=/tmp", "the caches are mounted below it"),
        ("NVIDIA_VISIBLE_DEVICES=all", "use environment.CUDA_VISIBLE_DEVICES"),
        ("AWS_SECRET_ACCESS_KEY=x", "it is a secret"),
        ("WANDB_API_KEY=x", "it is a secret"),
        ("HUGGINGFACEHUB_API_TOKEN=x", "it is a secret"),
        ("https_proxy=http://user:pass@proxy:3128", "has a password"),
        ("TORCH_CUDA_ARCH_LIST=9.0a", "no kernels for compute capability 12.1"),
        ("FLASHINFER_CUDA_ARCH_LIST=12.0a", "no kernels for compute capability 12.1"),
        ("TRITON_CACHE_DIR=cache", "an absolute path was expected"),
        ("TRITON_CACHE_DIR=/usr/lib", "/usr is the image's"),
        ("VLLM_CACHE_ROOT=/models/x", "/models is the image's"),
        ("HF_HOME=/data", "root is read-only"),
    ],
)
def test_dangerous_variable_is_refused_with_the_reason(setting: str, reason: str):
    name, _, value = setting.partition("=")
    message = refusal(f"environment.{name}={value}")
    assert message.startswith(f"environment.{name} cannot be set: ")
    assert reason in message
    assert "pass@" not in message


def test_empty_gid_index_is_refused():
    deployment = with_settings(parse('environment: {NCCL_IB_GID_INDEX: ""}', source="deckard.yaml"), ())
    with pytest.raises(BadInputError, match="an empty index is read as 0"):
        resolve(deployment, profile=library.profile("spark"))


@pytest.mark.parametrize(
    ("value", "profile", "fits"),
    [
        ("12.1a", "spark", True),
        ("12.1", "spark", True),
        ("12.0", "spark", True),
        ("12.0f", "spark", True),
        ("9.0 12.1a", "spark", True),
        ("8.0;9.0+PTX", "spark", True),
        ("Blackwell", "spark", True),
        ("10.0a", "b200", True),
        ("12.0", "b200", False),
        ("10.3a", "b200", False),
        ("12.1+PTX", "b200", False),
    ],
)
def test_architectures_are_compared_with_the_profiles_gpu(value: str, profile: str, *, fits: bool):
    setting = f"environment.TORCH_CUDA_ARCH_LIST={value}"
    if fits:
        assert resolved(setting, profile=profile).environment["TORCH_CUDA_ARCH_LIST"] == value
    else:
        assert "no kernels" in refusal(setting, profile=profile)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("NCCL_SOCKET_IFNAM", "did you mean 'NCCL_SOCKET_IFNAME'?"),
        ("FLASHINFER_CUDA_ARCH_LISTS", "did you mean 'FLASHINFER_CUDA_ARCH_LIST'?"),
        ("VLLM_LOGGIN_LEVEL", "did you mean 'VLLM_LOGGING_LEVEL'?"),
        ("NOBODYS_VARIABLE", "reads the variable NOBODYS_VARIABLE"),
        ("TORCH_MATMUL_PRECISION", "vLLM reads VLLM_FLOAT32_MATMUL_PRECISION"),
    ],
)
def test_variable_that_nothing_reads_is_refused(name: str, suggestion: str):
    assert suggestion in refusal(f"environment.{name}=x")


def test_unlisted_variable_of_a_library_is_accepted_with_a_note():
    found = resolved("environment.NCCL_QUITE_NEW_THING=1")
    assert found.notes == (
        "environment.NCCL_QUITE_NEW_THING: no known variable of NCCL, which its name belongs to",
    )


def test_costs_are_noted_for_the_users_own_settings_alone():
    assert resolved(profile="cpu").notes == ()
    assert resolved("environment.TZ=UTC").notes == ()
    (note,) = resolved("environment.CUDA_LAUNCH_BLOCKING=1").notes
    assert "each kernel is waited for" in note
    assert resolved("environment.CUDA_LAUNCH_BLOCKING=0").notes == ()
    (note,) = resolved("environment.TORCHINDUCTOR_CACHE_DIR=/tmp/i").notes
    assert "lost when it stops" in note


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_AUDIT", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_variable_that_runs_code_needs_to_be_allowed(name: str):
    setting = f"environment.{name}=/tmp/x.so"
    assert f"environment.{name} as it is set opens" in refusal(setting)
    allowed = resolved(setting, f'allow_unsafe=["environment.{name}"]')
    assert f"environment.{name}" in allowed.disabled_protections
    assert f"environment.{name}" in [each.setting for each in safety.PROTECTIONS]


def test_moved_cache_keeps_its_folder_on_the_host():
    before = {mount.source: mount.target for mount in build_plan(resolved()).mounts}
    found = build_plan(
        resolved(
            "environment.TRITON_CACHE_DIR=/tmp/triton",
            "environment.VLLM_CACHE_ROOT=/tmp/vllm",
            "environment.FLASHINFER_WORKSPACE_BASE=/tmp/fi",
        )
    )
    after = {mount.source: mount.target for mount in found.mounts}
    assert before.keys() == after.keys()
    moved = {
        source.rpartition("/")[2]: target for source, target in after.items() if target.startswith("/tmp/")
    }
    assert moved == {"triton": "/tmp/triton", "vllm": "/tmp/vllm", "flashinfer": "/tmp/fi/.cache/flashinfer"}


def test_lists_do_not_contradict_each_other():
    known = known_variables()
    assert not known.names & known.unread.keys()
    assert not known.refused.keys() & known.costs.keys()
    assert len(known.names) > 1000
    assert all(
        reason == reason.strip() and "\n" not in reason
        for reason in (*known.refused.values(), *known.costs.values())
    )
