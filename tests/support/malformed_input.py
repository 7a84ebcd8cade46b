"""One bad input: a command line, the files that lie in the working folder, and what its one line says of it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class MalformedInput:
    """One command line that must be refused with `code`; `says` is part of its one line."""

    id: str
    arguments: tuple[str, ...]
    says: str
    files: dict[str, bytes] = field(default_factory=dict)
    code: int = 2
