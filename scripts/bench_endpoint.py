#!/usr/bin/env python3
"""Measure any running vLLM, started by any means, into a record that `bench show|compare|report` reads.

scripts/bench_endpoint.py --server http://127.0.0.1:8000 --served-name NAME --model CHECKPOINT --out RECORD.json

Run it with a Python that can import vLLM (the environment is passed on), or name one with --python. It needs
no deployment and no state directory. With --bandwidth-gb-s the roofline is computed from the checkpoint's own
headers and configuration.
"""

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deckard_deploy import __version__
from deckard_deploy.catalog import library
from deckard_deploy.measuring.engine_bench import Endpoint, bench_options
from deckard_deploy.measuring.records import Ceiling, RecordHeader, Run, Subject
from deckard_deploy.measuring.sweep import sweep
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.operations.bench_host import host_facts
from deckard_deploy.planning.roofline import weight_bytes_read
from deckard_deploy.system.files import UMASK_MODE, write_atomically
from deckard_deploy.weights.checkpoint import read_checkpoint
from deckard_deploy.weights.gemma4_config import layers

ELSEWHERE = ("vision", "audio", "embed_tokens_per_layer", "multi_modal")  # not read when a token is decoded


def main() -> None:
    """Measure one sweep and write one record."""
    options = arguments()
    settings = Settings(
        workload=options.workload,
        concurrency=tuple(int(number) for number in options.concurrency.split(",")),
        runs=options.runs,
        requests=options.requests,
        output_tokens=options.output_tokens,
        input_tokens=options.input_tokens,
    )
    endpoint = Endpoint(
        server=options.server.rstrip("/").removesuffix("/v1"),
        served_name=options.served_name,
        model=str(options.model),
        python=(options.python,),
        environment=dict(os.environ),
        key=os.environ.get("OPENAI_API_KEY", ""),
    )
    first, now = settings.concurrency[0], datetime.now(UTC)
    header = RecordHeader(
        id=options.out.stem,
        made_at=now.isoformat("T", "seconds"),
        tool_version=__version__,
        subject=Subject(model=options.model.name, **json.loads(options.subject)),
        settings=settings,
        command=(
            "vllm",
            "bench",
            "serve",
            *bench_options(endpoint, settings.arguments(first, first * settings.requests, 0)),
        ),
        ceilings=ceilings(options, settings),
        host=host_facts(),
    )
    runs: list[Run] = []
    for (run,) in sweep([endpoint], settings, lambda text: print(text, file=sys.stderr, flush=True)):
        runs.append(run)
        record = header.record(runs=runs)
        # After each run, because the script may be killed.
        write_atomically(options.out, record.model_dump_json(indent=1) + "\n", mode=UMASK_MODE)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", required=True, help="where vLLM itself listens")
    parser.add_argument("--served-name", required=True)
    parser.add_argument(
        "--model", type=Path, required=True, help="the checkpoint's folder, for its tokenizer"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--python", default=sys.executable, help="one that can import vLLM")
    parser.add_argument(
        "--subject",
        default='{"engine": "vllm", "vllm_version": "unknown"}',
        help="what the record says of the server: profile, drafting, patches … (JSON, as a record has it)",
    )
    parser.add_argument("--workload", choices=("text", "random"), default="random")
    parser.add_argument("--concurrency", default="1,2,4,8,16")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2)
    parser.add_argument("--output-tokens", type=int, default=300)
    parser.add_argument("--input-tokens", type=int, default=256)
    parser.add_argument(
        "--bandwidth-gb-s", type=float, help="of the GPU's memory; without it the roofline is unknown"
    )
    parser.add_argument(
        "--bytes-of", metavar="MODEL", help="of the catalog, for a checkpoint that has no weights"
    )
    return parser.parse_args()


def ceilings(options: argparse.Namespace, settings: Settings) -> tuple[Ceiling, ...]:
    """Return bandwidth over the bytes of a step: tensors of the text tower (its tied head once) and the KV."""
    if options.bandwidth_gb_s is None:
        return tuple(Ceiling(concurrency=n, why="no bandwidth was given") for n in settings.concurrency)
    weights = (
        weight_bytes_read(library.model(options.bytes_of)) if options.bytes_of else bytes_in(options.model)
    )
    context = settings.input_tokens + settings.output_tokens // 2
    kv = kv_bytes(json.loads((options.model / "config.json").read_text()), context)
    return tuple(
        Ceiling(concurrency=n, tokens_per_s=n * options.bandwidth_gb_s * 1e9 / (weights + n * kv))
        for n in settings.concurrency
    )


def bytes_in(checkpoint: Path) -> int:
    """Return the bytes of the text tower's tensors."""
    tensors = read_checkpoint(checkpoint).tensors
    return sum(
        tensor.bytes for name, tensor in tensors.items() if not any(part in name for part in ELSEWHERE)
    )


def kv_bytes(config: dict[str, Any], context: int) -> int:
    """Return the bytes of keys and values that one sequence reads in a step, two bytes each."""
    text = config.get("text_config", config)
    spans = {"sliding_attention": min(context, text["sliding_window"]), "full_attention": context}
    elements: int = sum(layer.kv_heads * layer.head_dim * spans[layer.kind] for layer in layers(text))
    return 2 * 2 * elements


if __name__ == "__main__":
    main()
