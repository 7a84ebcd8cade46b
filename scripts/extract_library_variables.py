#!/usr/bin/env python3
"""Write the environment variables that libraries under vLLM read: catalog/schemas/library-variables.json.

    scripts/extract_library_variables.py "torch 2.10.0=FOLDER" "nccl 2.32.3=FOLDER" ...

FOLDER has the installed or unpacked library. The names are those that its Python files pass to os.environ, os.getenv or
a function of their own whose name has `env` in it, and the strings of its shared objects that begin with a prefix of
BINARY. Names without an underscore are left out: they are words of other systems. The variables that are documented
elsewhere than in a library's files are in catalog/variables.yaml.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "deckard_deploy/catalog/schemas/library-variables.json"
PYTHON = re.compile(
    r"""(?:environ(?:\.get|\.setdefault|\.pop)?\s*[(\[]\s*|getenv\s*\(\s*|\w*[eE]nv\w*\s*\(\s*"""
    r"""|env_name_\w+\s*=\s*)["']([A-Z][A-Z0-9]*_[A-Z0-9_]{1,60})["']"""
    r"""|["']([A-Z][A-Z0-9]*_[A-Z0-9_]{1,60})["']\s*(?:not\s+)?in\s+(?:os\.)?environ"""
)
# The shared objects of a library, and what its variables begin with: all other strings there are something else.
BINARY = {
    "nccl": ("libnccl.so*", re.compile(rb"(?<![A-Z0-9_])NCCL_[A-Z0-9_]{2,50}(?![A-Za-z0-9_])")),
    "torch": (
        "libtorch_c*.so",
        re.compile(rb"(?<![A-Z0-9_])(?:TORCH|PYTORCH|GLOO|TP|KINETO)_[A-Z0-9_]{2,50}(?=\x00)"),
    ),
}


def names(library: str, folder: Path) -> Iterator[str]:
    """Yield every variable that the files of a library name."""
    for path in folder.rglob("*.py"):
        if not {"test", "tests", "testing"} & set(path.parts):
            for found in PYTHON.findall(path.read_text(encoding="utf-8", errors="replace")):
                yield found[0] or found[1]
    pattern, prefix = BINARY.get(library.partition(" ")[0], ("", re.compile(rb"(?!)")))
    if pattern:
        for path in folder.rglob(pattern):
            for text in prefix.findall(path.read_bytes()):
                yield text.decode()


def main() -> None:
    found = {}
    for argument in sys.argv[1:]:
        library, _, folder = argument.partition("=")
        # vLLM's own variables are in the schema of each release.
        found[library] = sorted(
            {name for name in names(library, Path(folder)) if not name.startswith("VLLM_")}
        )
        print(f"{library}: {len(found[library])}", file=sys.stderr)
    TARGET.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
