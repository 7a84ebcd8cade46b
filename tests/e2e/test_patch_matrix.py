"""The table of releases in docs/patches.md is what the released wheels say today."""

from pathlib import Path

import pytest

from tests.e2e.conftest import Tool

pytestmark = pytest.mark.vllm


def test_the_documented_matrix_is_the_real_one(tool: Tool) -> None:
    page = (Path(__file__).parents[2] / "docs" / "patches.md").read_text(encoding="utf-8")
    documented = page.partition("<!-- matrix -->\n")[2].partition("<!-- end -->")[0]
    assert tool("patches", "matrix", "--markdown").stdout == documented
