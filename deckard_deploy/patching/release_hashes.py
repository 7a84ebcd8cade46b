"""The releases that a file of vLLM belongs to, by the hashes of the files in the released wheels."""

from functools import cache
from pathlib import Path

from deckard_deploy.catalog import strict_yaml

DATA = Path(__file__).with_name("release_hashes.yaml")


@cache
def release_hashes() -> dict[str, dict[str, str]]:
    """Return the sha256 of files by release and target path."""
    document = strict_yaml.parse(DATA.read_text(encoding="utf-8"), source=DATA.name)
    releases = document.data["releases"]
    assert isinstance(releases, dict)  # noqa: S101  our own file; a test reads it
    hashes = {}
    for release, files in releases.items():
        if isinstance(files, dict):
            hashes[release] = {target: str(digest) for target, digest in files.items()}
    return hashes


def releases_of(target: str, digest: str) -> tuple[str, ...]:
    """Return the releases whose `target` has this sha256, oldest first; empty if none is known."""
    return tuple(release for release, files in release_hashes().items() if files.get(target) == digest)


def describe_file(target: str, digest: str) -> str:
    """Describe a file for a message: `the file of vLLM 0.20.1 or 0.20.2`, or that no release is known."""
    releases = releases_of(target, digest)
    if not releases:
        guess = "a development build, or an edit"
        return f"a file of no release that is known here (sha256 {digest[:12]}…): {guess}"
    if len(releases) > 3:
        return f"the file of vLLM {releases[0]} up to {releases[-1]}"
    return f"the file of vLLM {' or '.join(releases)}"
