"""The known failures: of vLLM, of the libraries below it, and of docker. The data are the files in known/.

docs/troubleshooting.md is made from them.
"""

import re
from enum import StrEnum
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

FOLDER = Path(__file__).with_name("known")
# The files in the order of the page, and the heading of each. In one line of a log, an earlier file comes first.
TOPICS = {
    "memory": "Memory",
    "limits": "Shared memory, processes, files",
    "gpu": "GPU and driver",
    "environment": "The engine's installation",
    "kernels": "Kernels and compilers",
    "attention": "Attention",
    "drafter": "Drafters",
    "quantization": "Quantization",
    "checkpoint": "The checkpoint",
    "chat": "Chat requests",
    "options": "Options and environment variables",
    "distributed": "Several GPUs and processes",
    "network": "Network and hub",
    "docker-gpu": "Docker and the GPU",
    "docker": "Docker",
    "registry": "Pulling images",
    "endings": "Ends without a message",
    "areas": "Unknown exceptions, by the part of the engine",
}
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Rank(StrEnum):
    """How much a line proves. A cause in a log is preferred to any consequence in it, wherever the two stand."""

    CAUSE = "cause"
    CONSEQUENCE = "consequence"
    """Known, but other failures cause the same line."""
    ECHO = "echo"
    """A process reports that another one has failed. It counts only if the log holds no exception."""
    STALL = "stall"
    """The last progress of a start that hangs. It counts only if the start has stalled."""
    AREA = "area"
    """The part of the engine from which an exception comes that nothing else knows. Its patterns are for the path of
    a source file in the traceback."""


class Signature(BaseModel):
    """A known failure.

    title: the symptom, in the words that a user searches for.
    lines: patterns; a line of the log contains one of them. `{group}` in cause and fix is a named group that
    each of them has.
    context: pattern of that line or of an earlier one, source frames included.
    any_level: a record of a lower level than ERROR counts too, as a cause without a certain place.
    exit_codes, oom_killed: the end of the instance, for a failure that writes no line.
    source: where the text, or its explanation, can be read.
    example: a real line. control: a similar line of another failure, or of none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    lines: tuple[re.Pattern[str], ...] = ()
    context: re.Pattern[str] | None = None
    rank: Rank = Rank.CAUSE
    any_level: bool = False
    exit_codes: tuple[int, ...] = ()
    oom_killed: bool = False
    cause: str
    fix: str
    source: str
    example: str = ""
    control: str = ""

    def search(self, text: str) -> re.Match[str] | None:
        """Return the match of the first pattern that the text contains."""
        for pattern in self.lines:
            if found := pattern.search(text):
                return found
        return None


@cache
def signatures_of(topic: str) -> tuple[Signature, ...]:
    """Return the signatures of one file, in its order."""
    text = (FOLDER / f"{topic}.yaml").read_text(encoding="utf-8")
    data = yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    return TypeAdapter(tuple[Signature, ...]).validate_python(data)


@cache
def load_signatures() -> tuple[Signature, ...]:
    """Return all signatures, in the order of TOPICS."""
    return tuple(signature for topic in TOPICS for signature in signatures_of(topic))
