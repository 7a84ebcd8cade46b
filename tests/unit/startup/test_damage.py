"""Damage that a plain completion does not show, on a server that has it."""

from collections.abc import Callable
from contextlib import closing
from random import Random
from typing import Any

import pytest

from deckard_deploy.startup.damage import BROKEN, Endpoint, find_damage
from deckard_deploy.system.http import ANONYMOUS
from tests.support.misbehaving_server import Misbehaving, Reply

CALL = {"function": {"name": "get_weather", "arguments": '{"days": 3}'}}
DOCUMENT = '{"capital": "서울", "rivers": 1}'
TEXTS, TOOL, SCHEMA = range(5), 5, 6  # the questions by number: one alone, four together, a call, a document


def reply(content: str | None, finish: str = "stop", **message: Any) -> Reply:
    return Reply({"choices": [{"message": {"content": content, **message}, "finish_reason": finish}]})


def sound(number: int) -> Reply:
    if number == TOOL:
        return reply(None, tool_calls=[CALL])
    return reply(DOCUMENT if number == SCHEMA else "안녕하세요! 🌞")


def damage(answer: Callable[[int], Reply], *, calls_tools: bool = True) -> list[str]:
    with closing(Misbehaving(lambda _request, number: answer(number), Random(0))) as server:
        server.listen()
        return find_damage(Endpoint(server.url, "m", ANONYMOUS, calls_tools, timeout_s=20))


def test_sound_answers_have_no_damage():
    assert damage(sound) == []


def test_character_that_the_limit_cuts_is_no_damage():
    cut = reply(f"안녕{BROKEN}", "length")
    assert damage(lambda number: cut if number in TEXTS else sound(number)) == []


@pytest.mark.parametrize(
    ("wrong", "answer", "found"),
    [
        ([0], reply(f"안녕{BROKEN}하세요"), "1 answer(s) alone with broken characters"),
        ([0], reply(f"안녕{BROKEN}"), "1 answer(s) alone with broken characters"),
        ([2, 4], reply(f"{BROKEN}하세요"), "2 answer(s) of 4 together with broken characters"),
        ([1, 2, 3, 4], Reply(status=500), "4 answer(s) of 4 together"),
        ([TOOL], reply("I would call get_weather."), "no call of a tool"),
        (
            [TOOL],
            reply(None, tool_calls=[{"function": {"name": "get_weather", "arguments": "{"}}]),
            "no call",
        ),
        ([SCHEMA], reply("The capital is Seoul."), "no document"),
        ([SCHEMA], reply('{"capital": "서울"'), "no document"),
        ([SCHEMA], Reply(b"<html>"), "no document"),
    ],
)
def test_each_kind_of_damage_is_found_alone(wrong: list[int], answer: Reply, found: str):
    (line,) = damage(lambda number: answer if number in wrong else sound(number))
    assert line.startswith(found)


def test_engine_without_parser_is_not_asked_for_call():
    """The document is the sixth question then."""
    assert damage(lambda number: sound(SCHEMA if number == TOOL else number), calls_tools=False) == []
