"""Recompute the hashes of patches/<set>/manifest.yaml, or note the file hashes of another vLLM release.

    python scripts/update_patch_manifest.py --set vllm-0.19.1 --package .venv/lib/python3.12/site-packages/vllm
    python scripts/update_patch_manifest.py --read-release 0.21.0

The comments of the manifest stay: only the two hashes of each patch are replaced.
"""

import argparse
import re
from pathlib import Path

from deckard_deploy.patching.base_files import from_package
from deckard_deploy.patching.manifest import load_patch_set, sha256
from deckard_deploy.patching.release_hashes import DATA, release_hashes
from deckard_deploy.patching.unified_diff import apply
from deckard_deploy.patching.wheel import from_wheel, release_wheel
from deckard_deploy.system.versions import version_numbers


def update_hashes(name: str, package: Path) -> None:
    """Write the base and patched hashes of this vLLM package and these diffs."""
    patch_set = load_patch_set(name)
    base = from_package(package, [patch.target for patch in patch_set.patches])
    path = patch_set.folder / "manifest.yaml"
    text = path.read_text(encoding="utf-8")
    for patch in patch_set.patches:
        content = base.files[patch.target]
        patched = apply(patch_set.diff(patch), content.decode()).encode()
        entry = re.compile(
            rf"(- name: {patch.name}\n.*?base_sha256: )\S+(\n\s+patched_sha256: )\S+", re.DOTALL
        )
        text, count = entry.subn(rf'\g<1>"{sha256(content)}"\g<2>"{sha256(patched)}"', text, count=1)
        print(
            f"{patch.name}: {sha256(content)} -> {sha256(patched)}"
            if count
            else f"{patch.name}: not in the manifest"
        )
    path.write_text(text, encoding="utf-8")


def read_release(version: str) -> None:
    """Add the hashes of one release's files, read from its wheel, to the known ones."""
    targets = [patch.target for patch in load_patch_set("vllm-0.19.1").patches]
    files = from_wheel(release_wheel(version), targets, missing_ok=True).files
    releases = {**release_hashes(), version: {target: sha256(content) for target, content in files.items()}}
    lines = [line for line in DATA.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    lines.append("releases:")
    for release in sorted(releases, key=version_numbers):
        lines += [
            f"  {release}:",
            *(f'    {target}: "{digest}"' for target, digest in releases[release].items()),
        ]
    DATA.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"vLLM {version}: {len(files)} files")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", default="vllm-0.19.1", help="patch set to recompute")
    parser.add_argument("--package", type=Path, help="folder of the unpatched vllm package")
    parser.add_argument(
        "--read-release", metavar="VERSION", help="note the hashes of a released wheel instead"
    )
    arguments = parser.parse_args()
    if arguments.read_release:
        read_release(arguments.read_release)
    elif arguments.package:
        update_hashes(arguments.set, arguments.package)
    else:
        parser.error("--package or --read-release is needed")


if __name__ == "__main__":
    main()
