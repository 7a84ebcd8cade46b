"""Which release a file of vLLM's belongs to, from the hashes of files that were read out of the released wheels."""

from functools import cache
from pathlib import Path

from deckard_deploy.catalog import strict_yaml

DATA = Path(__file__).with_name("release_hashes.yaml")


@cache
def release_hashes() -> dict[str, dict[str, str]]:
    """release -> target path -> sha256."""
    document = strict_yaml.parse(DATA.read_text(encoding="utf-8"), source=DATA.name)
    releases = document.data["releases"]
    assert isinstance(releases, dict)  # noqa: S101  our own file; a test reads it
    return {
        release: {target: str(digest) for target, digest in files.items()}
        for release, files in releases.items()
        if isinstance(files, dict)
    }


def releases_of(target: str, digest: str) -> tuple[str, ...]:
    """The releases whose `target` has this sha256, oldest first; empty: none that was read."""
    return tuple(release for release, files in release_hashes().items() if files.get(target) == digest)


def looks_like(target: str, digest: str) -> str:
    """For a message: `the file of vLLM 0.20.1 or 0.20.2`, or that no release is known to have it."""
    releases = releases_of(target, digest)
    if not releases:
        return f"a file of no release that is known here (sha256 {digest[:12]}…): a development build, or an edit"
    if len(releases) > 3:
        return f"the file of vLLM {releases[0]} up to {releases[-1]}"
    return f"the file of vLLM {' or '.join(releases)}"
