"""Unknown: a value that could not be determined, with the reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Unknown:
    """The reason why a value is not known, as a phrase for the user."""

    reason: str

    def __str__(self) -> str:
        return self.reason
