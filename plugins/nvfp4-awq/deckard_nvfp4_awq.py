"""Teach vLLM 0.32 and 0.33 the NVFP4_AWQ and NVFP4_SVD of ModelOpt, without a change to the files of vLLM.

vLLM calls `register` in each of its processes (entry point group vllm.general_plugins). It adds both formats
to modelopt.py's own tables (deckard_nvfp4_scheme); everything else, the kernels included, is vLLM's.

An exception in `register` stops the process that called it; one while this module is imported would only be
logged (vllm/plugins/__init__.py:79), so nothing but the standard library is imported above.
"""

import hashlib
import importlib.metadata
import logging
import os
import sys
import zipimport

RELEASES = ("0.32.", "0.33.")
_LOG = logging.getLogger("vllm.deckard_nvfp4_awq")


def register() -> None:
    """Add the formats. Raises RuntimeError in another release of vLLM."""
    version = importlib.metadata.version("vllm")
    if not version.startswith(RELEASES):
        raise RuntimeError(
            f"deckard_nvfp4_awq is for vLLM 0.32 and 0.33, and this is {version}: take it off PYTHONPATH"
        )
    import deckard_nvfp4_scheme

    deckard_nvfp4_scheme.add_formats()
    # deckard-deploy reads this line, with which each process attests the file that it runs.
    _LOG.warning("deckard_nvfp4_awq registered: sha256=%s pid=%d", _own_sha256(), os.getpid())


def _own_sha256() -> str:
    """Return the SHA-256 of the wheel that this module came from, or of the module itself."""
    loader = sys.modules[__name__].__spec__.loader
    path = loader.archive if isinstance(loader, zipimport.zipimporter) else __file__
    with open(path, "rb") as file:  # noqa: PTH123  pathlib is not loaded yet
        return hashlib.sha256(file.read()).hexdigest()
