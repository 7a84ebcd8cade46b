"""The clients that people use against a real endpoint: python -m tests.campaigns.clients FOLDER [--engine NAME ...]

FOLDER keeps what the campaign needs and writes: `python`, an environment with the libraries of client_features.py, and
`npm`, with the packages below. Both are installed there by hand, since no lock of ours covers them:

    python3 -m venv FOLDER/python; FOLDER/python/bin/pip install openai anthropic langchain-openai litellm instructor \
        'pydantic-ai-slim[openai]'
    npm install --prefix FOLDER/npm openai @anthropic-ai/claude-code opencode-ai @openai/codex

For each engine a tiny Gemma 4 with a context of 128K tokens (its tokens are single bytes) is served behind the gateway
with a key. Each client asks through the gateway, and directly: through forward.py at the engine's socket. The result is
FOLDER/results.json; with --docs, docs/clients.md gets the table. Exits with 1 if something that must work does not.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from deckard_deploy.operations import connect
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.running.process import forward
from tests.support.ports import free_port
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
ENGINES = ("vllm-0.19.1-cpu", "vllm-0.32.0-cpu")
CONTEXT = 131072
NAME, MODEL = "clients", "tiny-long"
PAGE, START, END = ROOT / "docs/clients.md", "<!-- campaign: clients -->", "<!-- end -->"
HERE = Path(__file__).parent
TEXTS = ("Hello, this is a rehearsal.", "Here is my answer.")  # the second: after a thought
AGENT_S = 400


class Result(NamedTuple):
    """The result of one feature of a client. way: gateway or direct."""

    engine: str
    way: str
    client: str
    feature: str
    result: str
    detail: str


class Place(NamedTuple):
    """An endpoint as a client reaches it."""

    engine: str
    way: str
    base_url: str
    model: str
    key: str


MUST = (  # (client, feature) that must be ok on each engine, and those only on the newest
    ("openai", "json_schema, thinking off"),
    ("openai (JavaScript)", "json_schema, thinking off"),
)
MUST_ON_NEWEST = (
    ("anthropic", "messages, streamed"),
    ("opencode", "a prompt"),
    ("Claude Code", "a tool's round trip"),
)


def main() -> None:
    """Run the campaign from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", action="append", choices=ENGINES)
    parser.add_argument("--docs", action="store_true", help="write the table of docs/clients.md")
    options = parser.parse_args()
    folder = options.folder.resolve()
    stored = folder / "results.json"
    results = [Result(*row) for row in json.loads(stored.read_text())] if stored.exists() else []
    for engine in options.engine or ENGINES:
        results = [row for row in results if row.engine != engine]
        for row in of_engine(engine, folder):
            print(
                f"{row.result:8} {row.engine} {row.way}: {row.client}, {row.feature} {row.detail}", flush=True
            )
            results.append(row)
        stored.write_text(json.dumps(results, indent=1) + "\n")
    if options.docs:
        before, _, rest = PAGE.read_text().partition(START)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{START}\n{table(results)}{END}{after}")
    failed = violations(results)
    print("\n".join(failed) or "everything that must work does")
    sys.exit(1 if failed else 0)


def of_engine(engine: str, folder: Path) -> Iterator[Result]:
    """Yield the results of all clients with one engine."""
    with served(engine, folder) as places:
        for place in places:
            yield from python_clients(place, folder)
            yield from javascript_client(place, folder)
            yield from agents(place, folder)


@contextmanager
def served(engine: str, folder: Path) -> Iterator[list[Place]]:
    """Yield the endpoint behind the gateway and the engine itself."""
    write_model(folder / MODEL)
    port, direct = free_port(), free_port()
    key = tool(folder, "keys", "add", engine.replace(".", "-")).strip()
    chosen = ("--profile", "cpu", "--engine", engine, "--model", str(folder / MODEL), "--name", NAME)
    settings = (f"max-model-len={CONTEXT}", "gateway=nginx", f"publish.port={port}")
    tool(folder, "up", *chosen, *(word for setting in settings for word in ("--set", setting)))
    try:
        command = [sys.executable, forward.__file__, "vllm.sock", "127.0.0.1", str(direct)]
        with subprocess.Popen(command, cwd=folder / "home/deployments" / NAME) as forwarder:
            try:
                eventually(lambda: answers(direct))
                gateway = Place(engine, "gateway", f"http://127.0.0.1:{port}/v1", MODEL, key)
                yield [gateway, gateway._replace(way="direct", base_url=f"http://127.0.0.1:{direct}/v1")]
            finally:
                forwarder.terminate()
    finally:
        tool(folder, "down", "--name", NAME)
        tool(folder, "keys", "revoke", engine.replace(".", "-"))


def answers(port: int) -> bool:
    """Return True if something accepts connections on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def write_model(folder: Path) -> None:
    """Write the tiny model with a context in which an agent's instructions fit, one token a byte."""
    if folder.exists():
        return
    gemma4.write(folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = CONTEXT
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def tool(folder: Path, *words: str) -> str:
    """Run the tool, and return its stdout."""
    environment = {**os.environ, "DECKARD_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "deckard_deploy", *words], env=environment, cwd=ROOT, stdout=subprocess.PIPE,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}")
    return done.stdout


def python_clients(place: Place, folder: Path) -> Iterator[Result]:
    """Yield the results of client_features.py."""
    yield from lines(place, [str(folder / "python/bin/python"), str(HERE / "client_features.py")], {})


def javascript_client(place: Place, folder: Path) -> Iterator[Result]:
    """Yield the results of client_features.mjs."""
    yield from lines(place, ["node", str(HERE / "client_features.mjs")], {"CLIENTS_NPM": str(folder / "npm")})


def lines(place: Place, command: list[str], more: dict[str, str]) -> Iterator[Result]:
    """Yield the results that a program prints."""
    # LiteLLM would download a list of prices.
    environment = {**os.environ, "DECKARD_KEY": place.key, "LITELLM_LOCAL_MODEL_COST_MAP": "True", **more}
    words = [*command, place.base_url, place.model]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        if line.startswith('{"client"'):
            row = json.loads(line)
            yield Result(place.engine, place.way, row["client"], row["feature"], row["result"], row["detail"])


def agents(place: Place, folder: Path) -> Iterator[Result]:
    """Yield the results of the programs, with the configuration that `connect` prints."""
    endpoint = connect.Endpoint(
        base_url=place.base_url,
        model=place.model,
        context=CONTEXT,
        certificate=None,
        needs_key=True,
        vllm_version="",
    )
    home = folder / "agents" / place.engine / place.way
    (home / "work").mkdir(parents=True, exist_ok=True)
    yield from claude_code(place, endpoint, folder, home)
    (home / "opencode.json").write_text(connect.CLIENTS["opencode"].configuration(endpoint))
    (home / "config.toml").write_text(connect.CLIENTS["codex"].configuration(endpoint))
    found = {"OPENCODE_CONFIG": str(home / "opencode.json"), "CODEX_HOME": str(home)}
    said = agent(place, folder, home, ["opencode", "run", "--format", "json", "Hello?"], found)
    # Each has tools of its own, and the tiny model calls get_weather: the client refuses that, and asks again.
    yield place_result(place, "opencode", "a prompt", answered(said), said)
    said = agent(place, folder, home, ["codex", "exec", "--skip-git-repo-check", "--json", "Hello?"], found)
    yield place_result(place, "Codex", "a prompt", answered(said), said)


def claude_code(place: Place, endpoint: connect.Endpoint, folder: Path, home: Path) -> Iterator[Result]:
    """Yield the results of Claude Code: an answer, and a tool's call that is answered and followed by the text."""
    exports = connect.CLIENTS["claude-code"].configuration(endpoint).replace("\nclaude\n", "\n")
    print_json = "claude -p 'Hello?' --output-format stream-json --verbose"
    without = agent(place, folder, home, ["sh", "-c", f"{exports}{print_json} --tools ''"], {})
    yield place_result(place, "Claude Code", "a prompt", answered(without), without)
    said = agent(place, folder, home, ["sh", "-c", f"{exports}{print_json} --tools Bash"], {})
    round_trip = '"tool_use"' in said and '"tool_result"' in said and answered(said)
    yield place_result(place, "Claude Code", "a tool's round trip", round_trip, said)


def answered(said: str) -> bool:
    """Return True if a program has printed the answer of the tiny model's script."""
    return any(text in said for text in TEXTS)


def agent(place: Place, folder: Path, home: Path, command: list[str], more: dict[str, str]) -> str:
    """Run a program of npm in an empty folder, and return all that it has printed."""
    environment = {
        "PATH": f"{folder}/npm/node_modules/.bin:{os.environ['PATH']}", "HOME": str(home), "DECKARD_KEY": place.key,
        "IS_SANDBOX": "1", **more,
    }  # fmt: skip
    log = home / f"{command[0]}-{len(list(home.glob('*.log')))}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, env=environment, cwd=home / "work", stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        ) as program,
    ):  # fmt: skip
        try:
            program.wait(AGENT_S)
        except subprocess.TimeoutExpired:
            output.write(f"\nno end within {AGENT_S} s\n".encode())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)  # it may have left children that go on asking
    return log.read_text(errors="replace")


def place_result(place: Place, client: str, feature: str, ok: bool, said: str) -> Result:  # noqa: FBT001  a verdict
    """Return the result of a program; what it has said last is the detail if it is not ok."""
    detail = "" if ok else " ".join(said.replace(place.key, "KEY").split())[-300:]
    return Result(place.engine, place.way, client, feature, "ok" if ok else "wrong", detail)


def violations(results: list[Result]) -> list[str]:
    """Return what must work and does not."""
    newest = max(row.engine for row in results)
    found = []
    for row in results:
        must = (row.client, row.feature) in MUST
        must = must or (row.engine == newest and (row.client, row.feature) in MUST_ON_NEWEST)
        if must and row.result != "ok":
            found.append(
                f"must be ok: {row.engine} {row.way}: {row.client}, {row.feature}: {row.result} {row.detail}"
            )
    return found


def table(results: list[Result]) -> str:
    """Return the table of docs/clients.md: a row a feature, a column an engine and way."""
    columns = sorted({(row.engine, row.way) for row in results})
    rows = dict.fromkeys((row.client, row.feature) for row in results)
    cells = {(row.client, row.feature, row.engine, row.way): row.result for row in results}
    heads = " | ".join(f"{engine.removesuffix('-cpu')}, {way}" for engine, way in columns)
    text = f"| client | feature | {heads} |\n"
    text += "|---" * (len(columns) + 2) + "|\n"
    for client, feature in rows:
        found = [cells.get((client, feature, *column), "not run") for column in columns]
        text += f"| {client} | {feature} | " + " | ".join(found) + " |\n"
    return text


if __name__ == "__main__":
    main()
