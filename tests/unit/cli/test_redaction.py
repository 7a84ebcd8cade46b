"""The redaction of secrets in messages."""

import pytest

from deckard_deploy.cli.redaction import HIDDEN, redacted


@pytest.mark.parametrize("text", ["abc/def%40", "a b c d e f", "p@ss:w/rd"])
def test_every_form_of_a_secret_is_hidden(text: str) -> None:
    hidden = redacted(f"<{text}> {text!r}", {"MY_TOKEN": text})
    assert text not in hidden
    assert HIDDEN in hidden


def test_other_words_are_not_redacted() -> None:
    assert redacted("plan abc on spark", {"KEY": "abc", "NAME": "spark", "TOKEN": ""}) == "plan abc on spark"
