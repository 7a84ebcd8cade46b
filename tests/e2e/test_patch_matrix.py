"""The table of releases in docs/patches.md is what the released wheels say today."""

from pathlib import Path

import pytest

from tests.e2e.conftest import Tool

pytestmark = pytest.mark.vllm


def test_documented_matrix_is_current(tool: Tool) -> None:
    page = (Path(__file__).parents[2] / "docs" / "patches.md").read_text(encoding="utf-8")
    documented = page.partition("<!-- matrix -->\n")[2].partition("<!-- end -->")[0]
    assert tool("patches", "matrix", "--markdown").stdout == documented


@pytest.mark.parametrize(("release", "code", "word"), [("0.19.1", 0, "applies"), ("0.20.2", 4, "conflicts")])
def test_check_exits_by_release(tool: Tool, release: str, code: int, word: str) -> None:
    done = tool("patches", "check", "--release", release, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.count(word) >= 3
