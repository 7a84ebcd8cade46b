"""Exit codes: one of its own for each class of error, as documented."""

import re

import pytest

from deckard_deploy import errors
from deckard_deploy.errors import DeployError

CLASSES = DeployError.__subclasses__()


def test_every_class_has_its_own_exit_code():
    codes = sorted(error.exit_code for error in CLASSES)
    assert codes == list(range(2, 11))


def test_docstring_lists_every_code():
    table = dict(re.findall(r"── (\w+) +(\d+) ", errors.__doc__ or ""))
    assert table == {error.__name__: str(error.exit_code) for error in CLASSES}


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_message_and_hint_are_kept(error: type[DeployError]):
    raised = error("the port is used", hint="choose another")
    assert (str(raised), raised.message, raised.hint) == ("the port is used",) * 2 + ("choose another",)
