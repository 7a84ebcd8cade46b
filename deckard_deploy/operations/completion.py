"""The names on this host that a shell completes: read quickly, without loading what they name."""

from pathlib import Path

from deckard_deploy.running.layout import state_directory


def deployments(state_dir: Path | None) -> list[str]:
    """Return the names of the deployments."""
    return state_directory(state_dir).deployments()


def own_models(state_dir: Path | None) -> list[str]:
    """Return the names of the models that the user added."""
    return sorted(path.stem for path in state_directory(state_dir).own_models.glob("*.yaml"))


def records(state_dir: Path | None) -> list[str]:
    """Return the benchmark records, oldest first."""
    return sorted(path.stem for path in state_directory(state_dir).bench.glob("*.json"))
