"""Quantize the tied lm_head of the target at load, in vLLM 0.32 and 0.33, without a change to the files of vLLM.

The entry point of the wheel is `fp8` or `nvfp4`, so that the wheel's hash attests the format too. Nothing but
the standard library is imported above: an exception while this module is imported would only be logged
(vllm/plugins/__init__.py:79), one in the entry point stops the process.
"""

import deckard_nvfp4_awq


def fp8() -> None:
    """Add the formats of deckard_nvfp4_awq, and quantize lm_head to FP8: a scale for each row of the weights."""
    _register("fp8")


def nvfp4() -> None:
    """Add the formats of deckard_nvfp4_awq, and quantize the weights of lm_head to NVFP4."""
    _register("nvfp4")


def _register(form: str) -> None:
    deckard_nvfp4_awq.register()
    import deckard_lm_head_method

    deckard_lm_head_method.quantize_after_loading(form)
