"""Fuzz the reader of safetensors headers with atheris: no exception but ours, and nothing that the library refuses.

atheris has wheels for some Pythons only, so it is in no requirements file: install it into an environment of its own,
beside this package.

    python3.11 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris==3.0.0 safetensors pydantic -e .
    /tmp/fuzz/bin/python -m tests.campaigns.fuzz_weights -seed=7 -runs=1000000

The parsers of JSON, locks, journals and hub answers are fuzzed by Hypothesis, as is the transfer as a state machine:

    DECKARD_FUZZ_EXAMPLES=5000 pytest tests/unit/weights/test_parsers.py tests/unit/weights/test_pull_machine.py
"""

import sys

import atheris  # type: ignore[import-untyped]  # in an environment of its own

with atheris.instrument_imports(include=["deckard_deploy.weights"]):
    from deckard_deploy.errors import IntegrityError
    from deckard_deploy.weights.safetensors_header import parse_header

from safetensors import deserialize


def one(data: bytes) -> None:
    """A header and what follows it; whatever is accepted, the library must accept too."""
    header, _, tensors = data.partition(b"\0")
    content = len(header).to_bytes(8, "little") + header + tensors
    try:
        found = parse_header(header, len(content), source="fuzz")
    except IntegrityError as error:
        if "\n" in error.message:
            raise RuntimeError(error.message) from error
        return
    if {name for name, _ in deserialize(content)} != found.keys():  # type: ignore[no-untyped-call]
        raise RuntimeError(content)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
