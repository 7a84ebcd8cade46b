"""The features of Python's client libraries against an endpoint, one JSON line each: {client, feature, result, detail}.

argv: base URL (ending in /v1), model, and the clients to run (default: all). The key is in DECKARD_KEY. It runs with
the Python of an environment that has the libraries, not with the tool's own. A result is `ok`, `refused` (the endpoint
said no, with its reason in `detail`), or `wrong` (another answer than the tiny model's script).
"""

# The libraries are in an environment of their own.
# mypy: ignore-errors

import base64
import json
import os
import sys
import warnings
import zlib

import anthropic
import instructor
import litellm
import openai
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

warnings.filterwarnings("ignore")
litellm.suppress_debug_info = True
BASE, MODEL, KEY = sys.argv[1], sys.argv[2], os.environ["DECKARD_KEY"]
ASK = [{"role": "user", "content": "Hello?"}]
TEXT, THOUGHT, ANSWER = "Hello, this is a rehearsal.", "First I read the question.", "Here is my answer."
SCHEMA = {
    "type": "object",
    "properties": {"days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["days"],
    "additionalProperties": False,
}
FUNCTION = {"name": "get_weather", "description": "The weather of the coming days.", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALL = {"days": 3}
# By itself the tiny model calls get_weather: only a grammar makes it call another tool.
OTHER = [{"type": "function", "function": {**FUNCTION, "name": "pick_days"}}]


class Weather(BaseModel):
    """The weather of the coming days."""

    days: int = Field(ge=0, le=9)


def png() -> str:
    """A picture of 32 by 32 points as a data URL."""

    def part(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = part(b"IHDR", bytes([0, 0, 0, 32, 0, 0, 0, 32, 8, 0, 0, 0, 0]))
    rows = part(b"IDAT", zlib.compress((b"\0" + bytes(32)) * 32))
    data = b"\x89PNG\r\n\x1a\n" + head + rows + part(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()


def same(found: object, wanted: object) -> None:
    """Raise AssertionError unless both are equal."""
    if found != wanted:
        raise AssertionError(f"{found!r}, not {wanted!r}"[:300])


def fits(text: str) -> None:
    """Raise an error unless the text is JSON of SCHEMA."""
    Weather.model_validate_json(text, strict=True)


OPENAI = openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0, timeout=300)
ANTHROPIC = anthropic.Anthropic(base_url=BASE.removesuffix("/v1"), api_key=KEY, max_retries=0, timeout=300)
LANGCHAIN = ChatOpenAI(
    model=MODEL, base_url=BASE, api_key=KEY, temperature=0, max_retries=0, timeout=300, max_tokens=64
)
THINK = {"chat_template_kwargs": {"enable_thinking": True}}


def chat(**more: object) -> object:
    more.setdefault("messages", ASK)
    return OPENAI.chat.completions.create(model=MODEL, temperature=0, **{"max_tokens": 64, **more}).choices[0]


def streamed(**more: object) -> str:
    chunks = OPENAI.chat.completions.create(
        model=MODEL, messages=ASK, temperature=0, stream=True, max_tokens=64, **more
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def openai_tool_result() -> None:
    call = chat(tools=TOOLS).message
    same(json.loads(call.tool_calls[0].function.arguments), CALL)
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "rain"}
    same(chat(tools=TOOLS, messages=[*ASK, call.model_dump(exclude_none=True), result]).message.content, TEXT)


def openai_schema(**more: object) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}
    fits(chat(response_format=form, **more).message.content)


def openai_required() -> None:
    call = chat(tools=OTHER, tool_choice="required").message.tool_calls[0].function
    same(call.name, "pick_days")
    fits(call.arguments)


def openai_named() -> None:
    named = {"type": "function", "function": {"name": "pick_days"}}
    call = chat(tools=[*TOOLS, *OTHER], tool_choice=named).message.tool_calls[0].function
    same(call.name, "pick_days")
    fits(call.arguments)


def openai_thinking() -> None:
    said = chat(extra_body=THINK).message.model_dump()
    same((said["reasoning"].strip(), said["content"].strip()), (THOUGHT, ANSWER))


def openai_image() -> None:
    picture = {"type": "image_url", "image_url": {"url": png()}}
    same(
        chat(
            messages=[{"role": "user", "content": [picture, {"type": "text", "text": "Hi"}]}]
        ).message.content,
        TEXT,
    )


def openai_responses_stream() -> None:
    events = OPENAI.responses.create(
        model=MODEL, input="Hello?", temperature=0, stream=True, max_output_tokens=64
    )
    same("".join(event.delta for event in events if event.type == "response.output_text.delta"), TEXT)


def openai_models() -> None:
    listed = [model.id for model in OPENAI.models.list()]
    same(listed[:1], [MODEL])


def messages(**more: object) -> object:
    more.setdefault("messages", ASK)
    return ANTHROPIC.messages.create(model=MODEL, **{"max_tokens": 64, **more})


ANTHROPIC_TOOLS = [{"name": "get_weather", "description": "The weather.", "input_schema": SCHEMA}]


def anthropic_count() -> None:
    counted = ANTHROPIC.messages.count_tokens(model=MODEL, messages=ASK).input_tokens
    same(counted, messages().usage.input_tokens)


def anthropic_stream() -> None:
    with ANTHROPIC.messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream:
        same("".join(stream.text_stream), TEXT)


def anthropic_tool_stream() -> None:
    with ANTHROPIC.messages.stream(model=MODEL, max_tokens=64, messages=ASK, tools=ANTHROPIC_TOOLS) as stream:
        (used,) = [block for block in stream.get_final_message().content if block.type == "tool_use"]
    same((used.name, used.input), ("get_weather", CALL))


def anthropic_tool_result() -> None:
    (used,) = [block for block in messages(tools=ANTHROPIC_TOOLS).content if block.type == "tool_use"]
    turns = [
        *ASK,
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": used.id, "name": used.name, "input": used.input}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": used.id, "content": "rain"}]},
    ]
    same(messages(tools=ANTHROPIC_TOOLS, messages=turns).content[0].text, TEXT)


def anthropic_thinking() -> None:
    said = messages(
        thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048, extra_body=THINK
    ).content
    same([block.type for block in said], ["thinking", "text"])


def langchain_tools() -> None:
    same(LANGCHAIN.bind_tools(TOOLS).invoke("Hello?").tool_calls[0]["args"], CALL)


def lite(prefix: str, **more: object) -> object:
    return litellm.completion(
        model=f"{prefix}/{MODEL}", api_base=BASE, api_key=KEY, temperature=0, max_tokens=64,
        **{"messages": ASK, **more},
    )  # fmt: skip


def litellm_stream() -> None:
    chunks = lite("hosted_vllm", stream=True)
    same("".join(chunk.choices[0].delta.content or "" for chunk in chunks), TEXT)


def litellm_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
    fits(lite("hosted_vllm", response_format=form).choices[0].message.content)


def instructed(mode: object) -> None:
    client = instructor.from_openai(OPENAI, mode=mode)
    client.chat.completions.create(
        model=MODEL, messages=ASK, response_model=Weather, max_retries=0, max_tokens=64
    )


def agent(**more: object) -> object:
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE, api_key=KEY))
    return Agent(model, model_settings={"temperature": 0, "max_tokens": 64}, **more)


def pydantic_ai_tool() -> None:
    called = []
    worker = agent()

    @worker.tool_plain
    def get_weather(days: int) -> str:
        """The weather of the coming days."""
        called.append(days)
        return "rain"

    same((worker.run_sync("Hello?").output, called), (TEXT, [3]))


FEATURES = {
    ("openai", "chat"): lambda: same(chat().message.content, TEXT),
    ("openai", "chat, streamed"): lambda: same(streamed(), TEXT),
    ("openai", "completions"): lambda: (
        OPENAI.completions.create(model=MODEL, prompt="Hi", max_tokens=4).choices[0].text
    ),
    ("openai", "tools: auto, and the result's turn"): openai_tool_result,
    ("openai", "tools: required"): openai_required,
    ("openai", "tools: named"): openai_named,
    ("openai", "json_schema, thinking off"): openai_schema,
    ("openai", "json_schema, thinking on"): lambda: openai_schema(extra_body=THINK, max_tokens=128),
    ("openai", "json_object"): lambda: json.loads(
        chat(response_format={"type": "json_object"}, max_tokens=512).message.content
    ),
    ("openai", "thinking"): openai_thinking,
    ("openai", "image as a data URL"): openai_image,
    ("openai", "responses"): lambda: same(
        OPENAI.responses.create(model=MODEL, input="Hello?", temperature=0, max_output_tokens=64).output_text,
        TEXT,
    ),
    ("openai", "responses, streamed"): openai_responses_stream,
    ("openai", "models.list"): openai_models,
    ("openai", "models.retrieve"): lambda: same(OPENAI.models.retrieve(MODEL).id, MODEL),
    ("openai", "embeddings"): lambda: OPENAI.embeddings.create(model=MODEL, input="Hi"),
    ("anthropic", "messages"): lambda: same(messages().content[0].text, TEXT),
    ("anthropic", "messages, streamed"): anthropic_stream,
    ("anthropic", "count_tokens"): anthropic_count,
    ("anthropic", "tools, streamed"): anthropic_tool_stream,
    ("anthropic", "tools: the result's turn"): anthropic_tool_result,
    ("anthropic", "system among the messages"): lambda: same(
        messages(messages=[*ASK, {"role": "system", "content": "Be brief."}]).content[0].text, TEXT
    ),
    ("anthropic", "thinking"): anthropic_thinking,
    ("langchain-openai", "invoke"): lambda: same(LANGCHAIN.invoke("Hello?").content, TEXT),
    ("langchain-openai", "stream"): lambda: same(
        "".join(part.content for part in LANGCHAIN.stream("Hello?")), TEXT
    ),
    ("langchain-openai", "bind_tools"): langchain_tools,
    ("langchain-openai", "with_structured_output"): lambda: same(
        type(LANGCHAIN.with_structured_output(Weather).invoke("Hello?")), Weather
    ),
    ("litellm", "openai/"): lambda: same(lite("openai").choices[0].message.content, TEXT),
    ("litellm", "hosted_vllm/, streamed"): litellm_stream,
    ("litellm", "json_schema"): litellm_schema,
    ("instructor", "TOOLS"): lambda: instructed(instructor.Mode.TOOLS),
    ("instructor", "JSON_SCHEMA"): lambda: instructed(instructor.Mode.JSON_SCHEMA),
    ("pydantic-ai", "text"): lambda: same(agent().run_sync("Hello?").output, TEXT),
    ("pydantic-ai", "a tool's round trip"): pydantic_ai_tool,
    ("pydantic-ai", "output_type"): lambda: same(
        type(agent(output_type=Weather).run_sync("Hello?").output), Weather
    ),
}


def status_of(error: BaseException | None) -> int | None:
    """Return the status of the endpoint's refusal, which a library may have wrapped in an error of its own."""
    while error:
        if isinstance(getattr(error, "status_code", None), int):
            return error.status_code
        error = error.__cause__ or error.__context__
    return None


def tried(feature: object) -> tuple[str, str]:
    """Return the result and its detail."""
    try:
        feature()
    except Exception as error:  # noqa: BLE001  each library has errors of its own, and each is a result
        status = status_of(error)
        return ("refused" if status else "wrong"), f"{status or type(error).__name__}: {error}"
    return "ok", ""


for (library, name), feature in FEATURES.items():
    if library not in (sys.argv[3:] or [library]):
        continue
    result, detail = tried(feature)
    detail = " ".join(detail.replace(KEY, "KEY").split())[:300]
    print(json.dumps({"client": library, "feature": name, "result": result, "detail": detail}), flush=True)
