"""A patch set of two small modules, with its base files: everything that a build needs, and nothing of vLLM."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from deckard_deploy.patching.base_files import BaseFiles
from deckard_deploy.patching.manifest import PatchSet, load_patch_set

OLD = {
    "vllm/v1/spec_decode/eagle.py": "def propose():\n    return 'theirs'\n",
    "vllm/model_executor/layers/quantization/modelopt.py": "ALGOS = ['NVFP4']\n\n\ndef load():\n    return ALGOS\n",
}
NEW = {
    target: text.replace("theirs", "ours").replace("'NVFP4'", "'NVFP4_AWQ'") for target, text in OLD.items()
}
NAMES = {
    "eagle": "vllm/v1/spec_decode/eagle.py",
    "modelopt": "vllm/model_executor/layers/quantization/modelopt.py",
}
NEEDED = {"eagle": "{drafter: true}", "modelopt": "{quantization: [nvfp4_awq]}"}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class PatchSetOnDisk:
    """A patch set on disk, and a vllm package that it is for."""

    root: Path
    package: Path

    @property
    def patch_set(self) -> PatchSet:
        return load_patch_set("vllm-0.19.1", self.root)

    @property
    def base(self) -> BaseFiles:
        files = {target: (self.package.parent / target).read_bytes() for target in OLD}
        return BaseFiles(files=files, origin="the test")

    def rewrite(self, name: str, new: str) -> None:
        """Give a patch another result, in its diff and in the manifest."""
        target = NAMES[name]
        (self.root / "vllm-0.19.1" / f"{name}.patch").write_text(diff(target, OLD[target], new))
        manifest = self.root / "vllm-0.19.1/manifest.yaml"
        manifest.write_text(manifest.read_text().replace(digest(NEW[target]), digest(new)))


def diff(target: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"a/{target}", f"b/{target}", lineterm=""
    )
    return "\n".join(lines) + "\n"


def manifest() -> str:
    lines = ["vllm: 0.19.1", "patches:"]
    for name, target in NAMES.items():
        lines += [
            f"  - name: {name}",
            f"    target: {target}",
            f'    base_sha256: "{digest(OLD[target])}"',
            f'    patched_sha256: "{digest(NEW[target])}"',
            "    needed_when:",
            f"      {NEEDED[name].strip('{}')}",
            "    reason: because",
            "    upstream: [vllm-project/vllm#1]",
            f"    not_needed_from: {'0.31.0' if name == 'eagle' else 'null'}",
        ]
    return "\n".join(lines) + "\n"
