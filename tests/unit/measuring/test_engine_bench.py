"""The engine's benchmark reports what hinders it."""

import sys
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.measuring.engine_bench import Endpoint, benchmark_worker


def test_python_that_ends_early_is_an_error() -> None:
    there = Endpoint(server="s", served_name="m", model="/m", python=("/bin/false",), environment={})
    with benchmark_worker(there) as bench, pytest.raises(EnvironmentUnfitError, match="no output"):
        bench.measure([], ["more than a pipe holds" * 10_000])


def test_python_without_vllm_is_an_error() -> None:
    there = Endpoint(server="s", served_name="m", model="/m", python=(sys.executable,), environment={})
    with (
        benchmark_worker(there) as bench,
        pytest.raises(EnvironmentUnfitError, match="No module named 'vllm'"),
    ):
        bench.measure([])


def test_missing_python_is_an_error(tmp_path: Path) -> None:
    gone = Endpoint(
        server="s", served_name="m", model="/m", python=(str(tmp_path / "python"),), environment={}
    )
    with pytest.raises(EnvironmentUnfitError, match="No such file"), benchmark_worker(gone):
        pass
