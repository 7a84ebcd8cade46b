"""The plan's KV cache against vLLM's own functions: equal, over random models and settings and the known ones."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.specs import Architecture
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.memory.kv_cache import KvCache, kv_cache
from deckard_deploy.planning.memory.settings import CacheSettings, layers_of

pytestmark = pytest.mark.vllm
RANDOM_CASES = 2500
JsonObject = dict[str, Any]


def architecture_of(model: JsonObject) -> Architecture:
    """The catalog's kind of architecture, whose other numbers do not matter to the KV cache."""
    full = model["layers"] // model["period"]
    return library.model("deckard-31b").architecture.model_copy(
        update={
            "layers": model["layers"],
            "sliding_layers": model["layers"] - full,
            "kv_shared_layers": model["shared"],
            "sliding_window": model["window"],
            **{key: model[key] for key in ("kv_heads", "global_kv_heads", "head_dim", "global_head_dim")},
        }
    )


def known_model(name: str) -> JsonObject:
    architecture = library.model(name).architecture
    full = architecture.layers - architecture.sliding_layers
    return {
        "layers": architecture.layers,
        "period": architecture.layers // full,
        "shared": architecture.kv_shared_layers,
        "window": architecture.sliding_window,
        **architecture.model_dump(include={"kv_heads", "global_kv_heads", "head_dim", "global_head_dim"}),
    }


def random_model(draw: random.Random) -> JsonObject:
    """Full attention alone (period 1), sliding alone (a period longer than the model), or both."""
    full = draw.randint(1, 12)
    period = draw.choice([1, 2, 3, 4, 5, 6, 6, 6, 7])
    layers = full * period
    return {
        "layers": layers,
        "period": period if draw.random() > 0.1 else layers + 1,
        "shared": draw.choice([0, 0, draw.randint(0, layers - 1)]),
        "window": draw.choice([64, 512, 1000, 1024, 4096]),
        "kv_heads": draw.choice([1, 2, 3, 4, 8, 16]),
        "global_kv_heads": draw.choice([1, 2, 4, 8]),
        "head_dim": draw.choice([64, 96, 128, 256]),
        "global_head_dim": draw.choice([64, 128, 256, 512]),
    }


def random_case(draw: random.Random) -> JsonObject:
    return {
        "models": [random_model(draw) for _ in range(draw.choice([1, 1, 2]))],
        "element_bytes": draw.choice([1, 2, 4]),
        "ranks": draw.choice([1, 1, 2, 4, 8]),
        "block_size": draw.choice([16, 16, 32, 64, 128]),
        "length": draw.choice([1, draw.randint(2, 4096), 65_536, 131_072, draw.randint(4096, 262_144)]),
        "in_flight": draw.choice([1, 512, 2048, 8192, 16_384, draw.randint(1, 70_000)]),
        "available": draw.choice([0, draw.randint(0, 2**30), draw.randint(0, 2**38)]),
        "hybrid": draw.random() > 0.25,
    }


def known_cases() -> list[JsonObject]:
    base = {"ranks": 1, "block_size": 16, "in_flight": 8192, "available": 80 * 2**30, "hybrid": True}
    target, drafter = known_model("deckard-31b"), known_model("deckard-e4b")
    family = [known_model(name) for name in ("gemma-4-26b-a4b-it", "gemma-4-12b-it", "gemma-4-e2b-it")]
    uniform = {**target, "period": 1}  # full attention alone, as in Llama
    return [
        {**base, "models": models, "element_bytes": element_bytes, "length": length, **more}
        for models in (
            [target],
            [drafter],
            [target, drafter],
            *([model] for model in family),
            [uniform],
            *([known_model(name)] for name in ("tiny-gemma4", "tiny-gemma4-moe", "tiny-gemma4-e")),
        )
        for element_bytes in (1, 2)
        for length in (16_384, 65_536, 131_072, 262_144)
        for more in ({}, {"in_flight": 2048}, {"hybrid": False}, {"ranks": 2}, {"available": 5 * 2**30})
    ]


def planned(case: JsonObject) -> KvCache | None:
    """None where the plan refuses."""
    settings = CacheSettings(
        max_model_len=case["length"],
        max_num_seqs=1,
        in_flight=case["in_flight"],
        block_size=case["block_size"],
        element_bytes=case["element_bytes"],
        tensor_parallel=case["ranks"],
        hybrid=case["hybrid"],
    )
    layers = [layer for model in case["models"] for layer in layers_of(architecture_of(model), settings)]
    try:
        return kv_cache(layers, hybrid=case["hybrid"])
    except BadInputError:
        return None


def said(case: JsonObject, *, by_request: bool) -> JsonObject:
    """The plan's answer in the oracle's words; by_request: as planning/memory/fit.py counts for 0.32.0."""
    cache = planned(case)
    if cache is None:
        return {"refused": True}
    length, in_flight, available = case["length"], case["in_flight"], case["available"]
    sequence = cache.sequence_bytes(length, in_flight)
    longest = cache.longest(available, length, in_flight)
    answer = {
        "groups": [[len(group.layers), group.block_size] for group in cache.groups],
        "page": cache.block_bytes,
        "sequence": sequence,
        "longest": longest,
    }
    usable = available - (cache.block_bytes if by_request else 0)
    if usable <= 0 or sequence > usable:
        return {**answer, "too_small": cache.longest(usable, length, in_flight) if usable > 0 else 0}
    blocks = cache.blocks(available)
    concurrency = cache.concurrency(blocks, length, in_flight)
    tokens = int(concurrency * length) if by_request else cache.tokens(blocks)
    log = [
        f"GPU KV cache size: {tokens:,} tokens",
        f"Maximum concurrency for {length:,} tokens per request: {concurrency:.2f}x",
    ]
    return {**answer, "blocks": blocks, "concurrency": concurrency, "log": log}


def in_words(answer: JsonObject) -> JsonObject:
    """The oracle's answer, without the text of a refusal and the lines that are no report."""
    if "refused" in answer:
        return {"refused": True}
    lines = [line for line in answer.get("log", ()) if line.startswith(("GPU KV", "Maximum concurrency"))]
    # 0.32.0: one line.
    lines = [part for line in lines for part in line.replace(", Maximum", "\nMaximum").split("\n")]
    return {**answer, "log": lines} if "log" in answer else answer


def ask(python: Path, cases: list[JsonObject]) -> list[tuple[JsonObject, JsonObject]]:
    done = subprocess.run(
        [python, Path(__file__).with_name("kv_oracle.py")],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return list(zip(cases, json.loads(done.stdout), strict=True))


def cases() -> list[JsonObject]:
    draw = random.Random(20261123)
    return known_cases() + [random_case(draw) for _ in range(RANDOM_CASES)]


@pytest.fixture(scope="module")
def compared(engine_python: Path) -> list[tuple[JsonObject, JsonObject]]:
    return ask(engine_python, cases())


def test_plan_equals_engine(compared: list[tuple[JsonObject, JsonObject]]) -> None:
    asked = [(case, in_words(theirs), said(case, by_request=False)) for case, theirs in compared]
    different = [(case, theirs, ours) for case, theirs, ours in asked if theirs != ours]
    assert different == [], different[:3]


def test_plan_equals_newer_engine(new_engine_python: Path) -> None:
    """Without the layouts that 0.19.1 refuses: 0.32.0 pads some of them, and no model of the catalog has any."""
    compared = ask(new_engine_python, [case for case in cases()[:800] if planned(case) is not None])
    asked = [(case, in_words(theirs), said(case, by_request=True)) for case, theirs in compared]
    different = [(case, theirs, ours) for case, theirs, ours in asked if theirs != ours]
    assert different == [], different[:3]
    assert sum("log" in theirs for _, theirs, _ in asked) > 300
    # The control: counted as 0.19.1 counts, they are not equal.
    assert [case for case, theirs in compared[:50] if in_words(theirs) != said(case, by_request=False)] != []


def test_cases_cover_every_kind_of_answer(compared: list[tuple[JsonObject, JsonObject]]) -> None:
    answers = [theirs for _, theirs in compared]
    kinds = {
        "refused": [a for a in answers if "refused" in a],
        "too small": [a for a in answers if "too_small" in a],
        "served": [a for a in answers if "log" in a],
        "one group": [a for a in answers if len(a.get("groups", ())) == 1],
        "padded": [a for a in answers if len({layers for layers, _ in a.get("groups", ())}) > 1],
        "block sizes differ": [a for a in answers if len({size for _, size in a.get("groups", ())}) > 1],
    }
    assert {kind: len(found) for kind, found in kinds.items() if len(found) < 100} == {}


def test_target_with_drafter_has_22_groups(compared: list[tuple[JsonObject, JsonObject]]) -> None:
    found = [
        len(theirs["groups"])
        for case, theirs in compared[: len(known_cases())]
        if len(case["models"]) == 2 and case["hybrid"]
    ]
    assert set(found) == {22}
