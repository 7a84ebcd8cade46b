"""One engine with three heads, in a process of its own: BF16 and both formats of the plugin, measured in turn.

The engine starts with the head in one format, as the plugin leaves it at load; the other heads are made by the
plugin's own methods next to it. vLLM computes logits outside of its compiled graphs, so a head can be put in place
between two requests: nothing but the head differs.

Usage: python -m validation.gpu.lm_head_case CASE.json RESULT.json (started by validate_lm_head)
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import copy
import json
import os
import sys
import time
import traceback
from pathlib import Path
from statistics import median

import torch
from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)

from validation.gpu import mtp_case, turn_case

BATCHES = (1, 4, 16)  # of hidden states, for the head alone
STATES = 256  # hidden states for the distance
CHUNK = 16384  # rows of the table that are float32 at a time
TOP = 10  # tokens of each state whose log-probabilities are compared


class Heads:
    """The heads of an engine by format; `use` puts one in place. bytes: of each one's own memory."""

    def __init__(self, llm, loaded: str) -> None:
        model = mtp_case.runner_of(llm).get_model()
        layers = [module for module in model.modules() if isinstance(module, VocabParallelEmbedding)]
        head = next(layer for layer in layers if isinstance(layer, ParallelLMHead))
        self.table = next(layer for layer in layers if not isinstance(layer, ParallelLMHead)).weight.data
        self.owner = next(module for module in model.modules() if module._modules.get("lm_head") is head)
        self.heads = {"none": self._plain(head)}
        self.bytes, self.errors = {"none": 0}, {}
        if loaded != "none":
            self.heads[loaded] = head
            self.bytes[loaded] = sum(each.nbytes for each in head.parameters(recurse=False))
        for form in {"fp8", "nvfp4"} - self.heads.keys():
            self._add(form, llm.llm_engine.vllm_config)

    def _plain(self, head):
        """Return a head that reads the table, as without the option."""
        plain = copy.copy(head)
        plain._parameters = {"weight": torch.nn.Parameter(self.table, requires_grad=False), "bias": None}
        plain.quant_method = UnquantizedEmbeddingMethod()
        plain.quant_method.process_weights_after_loading(plain)  # packs on a CPU
        return plain

    def _add(self, form: str, config) -> None:
        import deckard_lm_head_method as plugin  # noqa: PLC0415  the wheel of a plain engine has none

        head = self._plain(self.heads["none"])
        before = allocated()
        try:
            with set_current_vllm_config(config), torch.no_grad():
                head.quant_method = plugin.METHODS[form](head, self.table.dtype)
                head.quant_method.process_weights_after_loading(head)
        except Exception as error:  # noqa: BLE001  what went wrong is the result
            traceback.print_exc()
            self.errors[form] = f"{type(error).__name__}: {error}"[:600]
            return
        self.heads[form] = head
        self.bytes[form] = (allocated() - before) or sum(
            each.nbytes for each in head.parameters(recurse=False)
        )

    def use(self, form: str) -> None:
        self.owner._modules["lm_head"] = self.heads[form]

    def logits(self, form: str, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits as the engine computes them, soft cap included."""
        return self.owner.logits_processor(self.heads[form], hidden).float()

    def exact_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of the table in float32 arithmetic."""
        rows = [hidden.float() @ part.float().T for part in self.table.split(CHUNK)]
        logits = torch.cat(rows, dim=1)
        cap = self.owner.logits_processor.soft_cap
        return torch.tanh(logits / cap) * cap if cap else logits


def allocated() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def hidden_states(table: torch.Tensor) -> torch.Tensor:
    """Random hidden states with four likely tokens each.

    Noise alone would make every token unlikely, and this model's own states one token certain. At a width of 5,376 with
    values of 0.04 the noise of 262,144 tokens weighs as much as one logit of about 17; the four get 12 to 20.
    """
    draw = torch.Generator(table.device).manual_seed(1)
    hidden = torch.randn(STATES, table.shape[1], generator=draw, device=table.device)
    tokens = torch.randint(len(table), (STATES, 4), generator=draw, device=table.device)
    logits = torch.rand(STATES, 4, generator=draw, device=table.device) * 8 + 12
    rows = table[tokens].float()
    hidden += ((logits / rows.square().sum(-1)).unsqueeze(-1) * rows).sum(1)
    return hidden.to(table.dtype)


def distance(before: torch.Tensor, after: torch.Tensor) -> dict[str, float]:
    """Return how far log-probabilities are from those before. Sums of both are in float32."""
    old, new = before.log_softmax(-1), after.log_softmax(-1)
    divergence = (old.exp() * (old - new)).sum(-1)
    likely = old.topk(TOP, dim=-1).indices
    off = (old.gather(1, likely) - new.gather(1, likely)).abs()
    return {
        "logits": ((after - before).norm() / before.norm()).item(),
        "kl_mean": divergence.mean().item(),
        "kl_max": divergence.max().item(),
        "top_mean": off.mean().item(),
        "top_max": off.max().item(),
        "other_first": (old.argmax(-1) != new.argmax(-1)).float().mean().item(),
    }


@torch.inference_mode()
def distances(heads: Heads) -> dict[str, dict[str, float]]:
    """Return the distance of each format from BF16, and of BF16 from float32 and from itself one state at a time."""
    hidden = hidden_states(heads.table)
    plain = heads.logits("none", hidden)
    found = {form: distance(plain, heads.logits(form, hidden)) for form in heads.heads if form != "none"}
    found["float32 instead of BF16"] = distance(plain, heads.exact_logits(hidden))
    alone = torch.cat([heads.logits("none", state) for state in hidden.split(1)])
    found["BF16, one at a time"] = distance(plain, alone)
    return found


@torch.inference_mode()
def head_seconds(heads: Heads, form: str, batch: int) -> float:
    """Return the seconds of one head on `batch` hidden states, without the rest of the step; the median of 20."""
    hidden = hidden_states(heads.table)[:batch].contiguous()
    times = []
    for _ in range(25):
        synchronize()
        started = time.perf_counter()
        heads.logits(form, hidden)
        synchronize()
        times.append(time.perf_counter() - started)
    return median(times[5:])


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def take_turns(llm, heads: Heads, case: dict, found: dict, write) -> None:
    """Measure each point with each head until the time is over, now in this order, now in the other."""
    turn, last, forms = 0, 0.0, list(heads.heads)
    while time.time() + last < case["deadline"]:
        started = time.time()
        for point in case["points"]:
            requests, context = map(int, point.split("x"))
            for form in forms[:: -1 if turn % 2 else 1]:
                heads.use(form)
                before = time.time()
                result = turn_case.measure(llm, requests, context, case["new_tokens"])
                print(f"{point} {form}: {time.time() - before:.1f} s", flush=True)
                if turn:  # the first turn fills the prefix cache and warms up
                    found["heads"][form]["points"].setdefault(point, []).append(result)
        last = time.time() - started
        print(f"turn {turn}: {last:.1f} s", flush=True)
        found["turns"] = turn
        turn += 1
        write()


def run_case(case: dict, folder: Path, write) -> None:
    started = time.perf_counter()
    llm = turn_case.start(case, folder)
    heads = Heads(llm, case["loaded"])
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    found = {"loaded": case["loaded"], "gpu": gpu, "ready_s": time.perf_counter() - started}
    found |= {"tokens": case["new_tokens"], "runner": type(mtp_case.runner_of(llm)).__module__}
    found |= {"errors": heads.errors, "turns": 0, "table_bytes": heads.table.nbytes}
    found["heads"] = {
        form: {
            "bytes": heads.bytes[form],
            "kernel": type(getattr(head.quant_method, "kernel", head.quant_method)).__name__,
            "seconds": {str(batch): head_seconds(heads, form, batch) for batch in BATCHES},
            "points": {},
        }
        for form, head in heads.heads.items()
    }
    found["distances"] = distances(heads)
    write(found)
    print(
        f"ready after {found['ready_s']:.0f} s, heads measured after {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    take_turns(llm, heads, case, found, lambda: write(found))


if __name__ == "__main__":
    file, result = Path(sys.argv[1]), Path(sys.argv[2])

    def write_result(found: dict) -> None:
        result.write_text(json.dumps(found, indent=1))

    try:
        run_case(json.loads(file.read_text()), file.parent, write_result)
    except BaseException as error:  # noqa: BLE001  # what went wrong is the result
        traceback.print_exc()
        if not result.exists():
            write_result({"error": f"{type(error).__name__}: {error}"[:600]})
    sys.stdout.flush()
    os._exit(0)  # engines that ended in an error do not come down by themselves
