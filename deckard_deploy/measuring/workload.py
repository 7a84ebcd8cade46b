"""The requests of a run: a number of them at once, each with a prompt that the server has not seen."""

import json
import random
from collections.abc import Iterator
from itertools import islice, product
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, PositiveInt

Workload: TypeAlias = Literal["text", "random"]

# The tasks ask for long answers, so that these reach the limit of tokens. A drafter's acceptance depends on
# the kind of text, so there is prose, reasoning, code and structured data.
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
    """The settings of a sweep. Lengths are in tokens.

    text: chat requests in English, answered until the model ends or `output_tokens` is reached. random:
    vLLM's own random tokens, `input_tokens` of them, answered with exactly `output_tokens`. requests: of each
    stream in a run. most_runs: the largest number of runs where `runs` of them are too far apart; None:
    exactly `runs`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workload: Workload = "text"
    concurrency: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16)
    runs: PositiveInt = 5
    most_runs: PositiveInt | None = None
    requests: PositiveInt = 2
    output_tokens: PositiveInt = 300
    input_tokens: PositiveInt = 256

    @property
    def counted(self) -> str:
        """The number of runs, in words."""
        if self.most_runs and self.most_runs > self.runs:
            return f"{self.runs} to {self.most_runs}"
        return str(self.runs)

    def arguments(self, concurrency: int, requests: int, seed: int) -> tuple[str, ...]:
        """Return options of `vllm bench serve` (benchmarks/serve.py, add_cli_args; 0.19.1 and 0.32.0 alike)."""
        if self.workload == "text":
            options = list(_backend("openai-chat", "/v1/chat/completions", "sharegpt"))
            options += ["--sharegpt-output-len", str(self.output_tokens)]
        else:
            options = list(_backend("openai", "/v1/completions", "random"))
            options += ["--random-input-len", str(self.input_tokens)]
            options += ["--random-output-len", str(self.output_tokens)]
        options += ["--num-prompts", str(requests)]
        options += ["--max-concurrency", str(concurrency)]
        options += ["--seed", str(seed)]
        # Greedy: a drafter's acceptance depends on the temperature, and the server's own default is the
        # model's.
        options += ["--temperature", "0"]
        options += ["--percentile-metrics", "ttft,tpot,itl,e2el"]
        options += ["--metric-percentiles", "50,90,99"]
        return tuple(options)

    def prompts(self, requests: int, seed: int) -> list[str]:
        """Return texts that no earlier run sent; none for random tokens, which vLLM makes from the seed."""
        if self.workload == "random":
            return []
        return list(islice(_texts(seed), requests))

    def dataset(self, requests: int, seed: int) -> str:
        """Return the prompts in ShareGPT's layout, the file of `--dataset-path`; "" for random tokens."""
        turns = []
        for prompt in self.prompts(requests, seed):
            turns.append({"conversations": [{"value": prompt}, {"value": "unused"}]})
        return json.dumps(turns) if turns else ""


def _backend(name: str, path: str, dataset: str) -> tuple[str, ...]:
    return ("--backend", name, "--endpoint", path, "--dataset-name", dataset)


def _texts(seed: int) -> Iterator[str]:
    """Yield prompts without end. Each begins with its own number, so that the prefix cache has none of it."""
    generator = random.Random(seed)
    tasks = list(product(_TASKS, _TOPICS))
    while True:
        generator.shuffle(tasks)
        for task, topic in tasks:
            yield f"Request {generator.getrandbits(64):016x}. {task.format(topic=topic)}"
