"""What is sent to the server: so many requests at once, each new to it."""

import random
from collections.abc import Iterator
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, PositiveInt

Workload: TypeAlias = Literal["text", "random"]

# Asked for at length, so that answers reach the limit of tokens; a drafter's acceptance depends on what is written,
# so there is prose, reasoning, code and structured data.
_TASKS = (
    "Explain {topic} to somebody who has never heard of it. Take several paragraphs.",
    "Write a detailed story of at least five hundred words in which {topic} matters.",
    "Reason step by step about the strongest arguments for and against {topic}.",
    "Write a documented Python module of at least eighty lines that simulates {topic}.",
    "Give a JSON array of fifteen objects about {topic}, each with name, year, origin and a sentence of text.",
    "Write a technical manual about {topic} with numbered sections and a table.",
)
_TOPICS = (
    "the tides",
    "bee keeping",
    "double-entry accounting",
    "the printing press",
    "railway signalling",
    "soil erosion",
    "public-key cryptography",
    "glass making",
    "migratory birds",
    "elevator scheduling",
    "sourdough bread",
    "earthquakes",
    "queueing at a bank",
    "sign languages",
    "steam turbines",
    "chess openings",
)


class Settings(BaseModel):
    """How a sweep measures. Lengths are in tokens.

    text: chat requests in English, answered until the model ends or `output_tokens` is reached. random: vLLM's own
    random tokens, `input_tokens` of them, answered with exactly `output_tokens`. most_runs: where the runs lie so far
    apart that `runs` of them say little, up to so many; None: exactly `runs`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workload: Workload = "text"
    concurrency: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16)
    runs: PositiveInt = 5
    most_runs: PositiveInt | None = None
    requests: PositiveInt = 2  # of each stream in a run
    output_tokens: PositiveInt = 300
    input_tokens: PositiveInt = 256

    @property
    def counted(self) -> str:
        """How many runs, in words."""
        more = self.most_runs and self.most_runs > self.runs
        return f"{self.runs} to {self.most_runs}" if more else str(self.runs)

    def arguments(self, concurrency: int, requests: int, seed: int) -> tuple[str, ...]:
        """Options of `vllm bench serve`, in 0.19.1 and 0.32.0 alike (benchmarks/serve.py, add_cli_args)."""
        if self.workload == "text":
            kind = ("openai-chat", "/v1/chat/completions", "sharegpt")
            lengths: tuple[str, ...] = ("--sharegpt-output-len", str(self.output_tokens))
        else:
            kind = ("openai", "/v1/completions", "random")
            lengths = (
                "--random-input-len",
                str(self.input_tokens),
                "--random-output-len",
                str(self.output_tokens),
            )
        backend = ("--backend", kind[0], "--endpoint", kind[1], "--dataset-name", kind[2])
        counts = ("--num-prompts", str(requests), "--max-concurrency", str(concurrency), "--seed", str(seed))
        percentiles = ("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99")
        # Greedy: what a drafter achieves depends on the temperature, and the server's own default is the model's.
        return (*backend, *lengths, *counts, "--temperature", "0", *percentiles)

    def prompts(self, requests: int, seed: int) -> list[str]:
        """Texts that no earlier run has sent; none for random tokens, which vLLM makes from the seed."""
        return list(_texts(requests, seed)) if self.workload == "text" else []


def _texts(count: int, seed: int) -> Iterator[str]:
    """Each begins with its own number, so that no prefix of one is in the cache from another."""
    dice = random.Random(seed)
    tasks = [(task, topic) for task in _TASKS for topic in _TOPICS]
    while True:
        dice.shuffle(tasks)
        for task, topic in tasks:
            if count == 0:
                return
            count -= 1
            yield f"Request {dice.getrandbits(64):016x}. {task.format(topic=topic)}"
