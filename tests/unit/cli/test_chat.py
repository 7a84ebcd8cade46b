"""`chat`: its options, stdin, and a conversation. The fake server answers with the messages that it got."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.cli.main import run
from tests.support.fake_deployment import FakeDeployment


class Chat:
    """`chat` to a running deployment: the exit code, and the lines of stdout."""

    def __init__(
        self, fake: FakeDeployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake.proven(fake.plan())
        self.state = ("--state-dir", str(fake.state.root))
        self.capsys, self.monkeypatch = capsys, monkeypatch
        self.said = ""

    def __call__(self, *words: str, stdin: str = "", code: int = 0) -> list[Any]:
        self.monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        assert run(["chat", *words, *self.state]) == code
        out, self.said = self.capsys.readouterr()
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def chat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Chat]:
    fake = FakeDeployment(tmp_path)
    yield Chat(fake, capsys, monkeypatch)
    fake.end()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_words_stdin_system_and_image_are_sent(chat: Chat, tmp_path: Path) -> None:
    assert chat("Explain", "quantum entanglement") == [[user("Explain quantum entanglement")]]
    assert chat.said == ""
    assert chat("Review this:", "-", stdin="a diff") == [[user("Review this: a diff")]]
    assert chat("-", "--system", "Be brief.", stdin="Hi") == [
        [{"role": "system", "content": "Be brief."}, user("Hi")]
    ]
    (tmp_path / "a.png").write_bytes(b"PNG")
    assert chat("what?", "--image", str(tmp_path / "a.png"))[0][0]["content"][1]["text"] == "what?"
    assert chat("-", stdin=" \n", code=2) == []
    assert "stdin is empty" in chat.said


def test_cut_answer_is_reported(chat: Chat) -> None:
    chat("count", "--max-tokens", "1")
    assert chat.said == "the answer is cut: it has reached --max-tokens 1 or the end of the context\n"


def test_conversation_keeps_its_history(chat: Chat) -> None:
    first, second = chat(stdin="one\n\ntwo\n")
    assert first == [user("one")]
    assert second == [user("one"), {"role": "assistant", "content": json.dumps(first)}, user("two")]


def test_json_is_one_response(chat: Chat) -> None:
    assert chat("hi", "--json")[0]["choices"][0]["finish_reason"] == "stop"
    assert chat("--json", code=2) == []
