"""Let PyTorch's CUDA wheel be imported where there is no CUDA: python3 stub_cuda.py <site-packages>/torch/lib

The wheel links 4 GB of NVIDIA libraries, and Python loads it with every symbol bound at once (RTLD_NOW). A test image
that computes on the CPU calls none of them, so each missing library becomes a few kB with the right name, the right
symbol versions, and functions that say who called them and abort. Needs nm, readelf and gcc.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

# Libraries whose symbols carry no version, so that only their names' beginnings tell whose they are.
UNVERSIONED = {
    "nccl": "libnccl.so.2",
    "cuFile": "libcufile.so.0",
    "curand": "libcurand.so.10",
    "cusparseLt": "libcusparseLt.so.0",
}
NVIDIA = re.compile(r"\[(lib(?:cu|nv|nccl)[\w-]*\.so\.\d+)\]")
SYMBOL = re.compile(r"^\s+[Uw] (\w+)(?:@+(\S+))?$", re.MULTILINE)
VERSION_OWNER = re.compile(r"File: (\S+) .*\n\s+\w+:\s+Name: (\S+)")


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def missing_libraries(libraries: list[Path], present: set[str]) -> set[str]:
    """The sonames that torch's libraries need and nobody brings. (libcuda itself is opened later, by name.)"""
    needed = {name for library in libraries for name in NVIDIA.findall(output("readelf", "-dW", library))}
    return needed - present - {"libcuda.so.1"}


def symbols_by_library(libraries: list[Path], missing: set[str]) -> dict[str, dict[str, str]]:
    """For each missing library the symbols that are wanted of it, each with its version or ''."""
    wanted: dict[str, dict[str, str]] = defaultdict(dict)
    for library in libraries:
        owner_of_version = {
            name: file for file, name in VERSION_OWNER.findall(output("readelf", "-VW", library))
        }
        for name, version in SYMBOL.findall(output("nm", "-D", "--undefined-only", library)):
            prefix = next((prefix for prefix in UNVERSIONED if name.startswith(prefix)), "")
            owner = owner_of_version.get(version) if version else UNVERSIONED.get(prefix)
            if owner in missing:
                wanted[owner][name] = version
    return wanted


def write_stub(folder: Path, soname: str, symbols: dict[str, str]) -> None:
    code = ["#include <stdio.h>", "#include <stdlib.h>", "int stub_of_nothing;"]
    code += [
        f'void {name}(void) {{ fputs("{name}: no CUDA in this image\\n", stderr); abort(); }}'
        for name in symbols
    ]
    versions = sorted(set(symbols.values()) - {""})
    source, script = folder / f"{soname}.c", folder / f"{soname}.map"
    source.write_text("\n".join(code))
    script.write_text(
        "".join(f"{version} {{ global: *; }};\n" for version in versions) or "{ global: *; };\n"
    )
    output(
        *("gcc", "-shared", "-fPIC", "-fno-builtin", "-w", f"-Wl,-soname,{soname},--version-script={script}"),
        *("-o", folder / soname, source),
    )
    source.unlink()
    script.unlink()


def main(folder: Path) -> None:
    libraries = sorted(folder.glob("lib*.so"))
    present = {file.name for file in (folder.parent.parent / "nvidia").glob("*/lib/*.so*")}
    missing = missing_libraries(libraries, present)
    symbols = symbols_by_library(libraries, missing)
    for soname in sorted(missing):
        write_stub(folder, soname, symbols[soname])
        print(f"{soname}: {len(symbols[soname])} symbols")


main(Path(sys.argv[1]))
