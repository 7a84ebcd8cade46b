"""Repeat the phases of one case in one engine: whose text was wrong, and which passes got other positions than asked.

What a pass was given is cloned on the engine's own stream and read after the phase, so that nothing waits for it.

Usage: python -m validation.gpu.repeat_case CASE.json RESULT.json (started by validate_repeat, a process for each case)
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import time

import numpy as np
from vllm import LLM, SamplingParams

from validation.gpu import spec_case
from validation.gpu.outcome import leave


class Recorder:
    """Of every forward pass: each request's computed tokens as the scheduler has them, and the positions on the GPU."""

    def __init__(self, runner) -> None:
        self.passes, forward = [], runner._model_forward

        def recorded(*args, **options):
            count = runner.input_batch.num_reqs
            starts = runner.query_start_loc.np[: count + 1].copy()
            computed = runner.input_batch.num_computed_tokens_cpu[:count].copy()
            positions = runner.positions[: starts[-1]].clone()
            self.passes.append((starts, computed, positions))
            return forward(*args, **options)

        runner._model_forward = recorded

    def take_wrong(self) -> list[str]:
        taken, self.passes, found = self.passes, [], []
        for number, (starts, computed, positions) in enumerate(taken):
            asked = [
                first + np.arange(end - start)
                for first, start, end in zip(computed, starts[:-1], starts[1:], strict=True)
            ]
            off = positions.cpu().numpy() - np.concatenate(asked)
            if off.any():
                found.append(
                    f"pass {number}: {np.count_nonzero(off)} of {len(off)} positions, off by {set(off.tolist())}"
                )
        return found


def run_case(case: dict) -> dict[str, object]:
    settings = {
        "dtype": "float32",
        "max_num_batched_tokens": 8192,
        "gpu_memory_utilization": 0.1,
        "enforce_eager": True,
        "seed": 0,
        **case["engine"],
    }
    llm = LLM(**settings)
    recorder = Recorder(
        llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    )
    expected, wrong, off, phases = case.get("expected") or {}, [], [], 0
    deadline = time.monotonic() + case["seconds"]
    while time.monotonic() < deadline:
        llm.reset_prefix_cache()
        for phase in case["phases"]:
            tokens = spec_case.TEXT_PHASES[spec_case.REPEAT.get(phase, phase)][1]
            params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
            outputs = llm.generate(spec_case.prompts_of(phase), params, use_tqdm=False)
            text = [list(output.outputs[0].token_ids) for output in outputs]
            count = sum(
                ours != right for ours, right in zip(text, expected.setdefault(phase, text), strict=True)
            )
            off += [f"{phase}, {what}" for what in recorder.take_wrong()]
            wrong += [f"{phase}: {count} of {len(text)} requests"] if count else []
            phases += 1
    return {"phases": phases, "wrong": wrong, "off": off, "tokens": expected}


if __name__ == "__main__":
    leave(run_case)
