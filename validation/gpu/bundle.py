"""Build an archive of vLLM 0.19.1, 0.32.0 or 0.33.0 for one sm_90 GPU machine that has PyTorch and no network.

The wheel's library holds machine code for up to ten architectures; all but sm_90's is zeroed in place (offsets do not
move), so that the archive compresses to about 50 MB. What a dense Gemma 4 does not need is left out: MoE kernels,
FlashAttention (0.19.1: its two head sizes force TRITON_ATTN, vllm/model_executor/models/config.py:61; 0.32.0 prefers
FlashAttention 4, which needs nvidia-cutlass-dsl, and takes TRITON_ATTN where vllm_flash_attn/cute is missing). 0.32.0
and 0.33.0 keep to PyTorch's stable ABI and run with torch 2.11; 0.19.1 needs a symbol that is not there, and a
CUDA 12 runtime.

Needs pip with access to a package index, gcc and xz. Usage: python3 -m validation.gpu.bundle VERSION WORKDIR [ARCHIVE]
(ARCHIVE is .gpu/site.tar.xz where it is not said: what the validations of 0.19.1 take along)
"""

import mmap
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXTENSIONS = {
    "0.19.1": ("_C", "_C_stable_libtorch"),
    "0.32.0": ("_C_stable_libtorch",),
    "0.33.0": ("_C_stable_libtorch",),
}
# In the wheel, but of no use to a dense model on a machine without a network.
LEFT_OUT = (
    "nvidia/cuda_runtime/include",
    "pycountry/locales",
    "mistral_common/data",
    "vllm/model_executor/layers/fused_moe/configs",
    "vllm/third_party/deep_gemm",
    "vllm/third_party/fmha_sm100",
    "vllm/vllm_flash_attn/cute",
    "bin",
)
PIP_TARGET = (
    *("--no-deps", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"),
    *(f"--platform=manylinux_2_{minor}_x86_64" for minor in (31, 28, 27, 26, 24, 17)),
    *("--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64"),
)

FATBIN_MAGIC = 0xBA55ED50
ELF, PTX = 2, 1


def fatbin_entries(image: mmap.mmap, start: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """(payload offset, payload size, kind, architecture) of each entry of the fat binary at `start`."""
    offset = start + 16
    while offset < start + 16 + size:
        kind, _, header_size, payload = struct.unpack_from("<HHIQ", image, offset)
        (arch,) = struct.unpack_from("<I", image, offset + 28)
        yield offset + header_size, payload, kind, arch
        offset += header_size + payload


def keep_sm90(library: Path) -> None:
    """Zero every entry that an sm_90 device does not load; where none is for sm_90, keep the PTX (Marlin)."""
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as image:
        offset = -1
        while (offset := image.find(struct.pack("<I", FATBIN_MAGIC), offset + 1)) >= 0:
            _, version, header_size, size = struct.unpack_from("<IHHQ", image, offset)
            if (version, header_size) != (1, 16) or offset + size > len(image):
                continue
            entries = list(fatbin_entries(image, offset, size))
            has_elf = any(kind == ELF and arch == 90 for _, _, kind, arch in entries)
            for at, length, kind, arch in entries:
                kept = (kind == ELF and arch == 90) or (not has_elf and kind == PTX and arch <= 90)
                if not kept:
                    image[at : at + length] = bytes(length)


def pip(*args: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *args], check=True)


def build(version: str, work: Path, archive_path: Path) -> None:
    wheels, vllm_wheel, unpacked, site = (work / name for name in ("wheels", "vllm", "unpacked", "site"))
    requirements = str(HERE / f"requirements-device-{version}.txt")
    pip("download", "--quiet", *PIP_TARGET, "--dest", str(vllm_wheel), f"vllm=={version}")
    pip("download", "--quiet", *PIP_TARGET, "--dest", str(wheels), "--requirement", requirements)
    for folder in (unpacked, site):
        shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(next(vllm_wheel.glob(f"vllm-{version}-*.whl"))) as archive:
        archive.extractall(unpacked)
    found = sorted(str(path) for path in wheels.glob("*.whl"))
    pip("install", "--quiet", "--no-index", "--no-compile", *PIP_TARGET, "--target", str(site), *found)
    shutil.copytree(unpacked / "vllm", site / "vllm", ignore=shutil.ignore_patterns("*.so", "vllm-rs"))
    shutil.copytree(unpacked / f"vllm-{version}.dist-info", site / f"vllm-{version}.dist-info")
    for name in EXTENSIONS[version]:
        shutil.copy(unpacked / "vllm" / f"{name}.abi3.so", site / "vllm")
        keep_sm90(site / "vllm" / f"{name}.abi3.so")
    shutil.copy(unpacked / "vllm" / "cumem_allocator.abi3.so", site / "vllm")
    if version == "0.19.1":
        shim = site / "libmessage_logger_shim.so"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O2", "-o", shim, HERE / "message_logger_shim.c"], check=True
        )
    # vllm/vllm_flash_attn/__init__.py raises when neither FlashAttention extension can be imported.
    (site / "vllm/vllm_flash_attn/_vllm_fa2_C.py").write_text("# not carried: TRITON_ATTN is used\n")
    for name in LEFT_OUT:
        shutil.rmtree(site / name, ignore_errors=True)
    for folder in [
        path for path in site.rglob("*") if path.name in {"__pycache__", "tests"} and path.is_dir()
    ]:
        shutil.rmtree(folder, ignore_errors=True)
    archive_path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-C", site, "-I", "xz -T0 -6", "-cf", archive_path, "."], check=True)


if __name__ == "__main__":
    version, work, *rest = sys.argv[1:]
    if version not in EXTENSIONS:
        sys.exit(f"error: no bundle is known for vLLM {version}: {', '.join(EXTENSIONS)}")
    archive = Path(rest[0] if rest else ROOT / ".gpu/site.tar.xz").resolve()
    build(version, Path(work).resolve(), archive)
    print(f"{archive}: {archive.stat().st_size / 2**20:.1f} MiB")
