"""Options that several verbs share."""

import pytest

from deckard_deploy.cli.main import run


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "0", "fast"])
@pytest.mark.parametrize("words", [["bench", "compare", "a", "b", "--fail-below"], ["top", "--interval"]])
def test_invalid_number_is_refused(words: list[str], number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, number]) == 2  # nan would be within every bound, and fail no comparison
    assert "--" in capsys.readouterr().err
