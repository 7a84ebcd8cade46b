"""Secrets planted wherever a user may have them; afterwards no output, file or other program's argv holds one."""

import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.planted_secrets import FILES, SECRETS, canary, hits, plant, variables

CHECKOUT = Path(__file__).parents[3]
READING = (
    "--help", "profiles", "models show deckard-31b", "engines", "plan --profile cpu", "plan --profile spark --json",
    "render compose --profile spark", "render command --profile b200", "render run --profile spark",
    "render systemd --profile spark", "patches list", "inspect .", "plan --profile cpu --nonsense",
)  # fmt: skip
# In this order, in one home directory; each of the three leaves files.
WRITING = (
    ("doctor --profile cpu --save facts.json", "up --profile cpu --dry-run", "bench", "top --once"),
    (
        "keys add alice",
        "lock --profile spark",
        "pull --profile spark",
        "verify --profile spark",
        "-v up --profile spark",
    ),
    ("keys add alice", "keys list", "status", "logs", "wait", "chat hello", "watch", "rollback", "down"),
)
IN_ARGUMENTS = (
    "--set api-key={}", "--set api_key={}", "--set hf-token={}", "--set environment.HF_TOKEN={}",
    "--set environment.VLLM_API_KEY={}", "--set environment.S3_SECRET_ACCESS_KEY={}",
)  # fmt: skip
RAISES = "import huggingface_hub, os\ndef broken(*_):\n    raise RuntimeError('it failed with ' + os.environ['{}'])\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    plant(folder)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def environment(home: Path) -> dict[str, str]:
    plain = {"PATH": os.environ["PATH"], "HOME": str(home), "DECKARD_HOME": str(home / "state")}
    ours = {"PYTHONPATH": str(CHECKOUT), "HF_ENDPOINT": "http://127.0.0.1:1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**variables(), **plain, **ours}


def tool(arguments: list[str], *, work: Path, environment: dict[str, str]) -> bytes:
    command = [sys.executable, "-m", "deckard_deploy", *arguments]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, check=False, timeout=120)
    return done.stdout + done.stderr


@contextmanager
def argv_of_everything() -> Iterator[list[bytes]]:
    """What stands in /proc/*/cmdline meanwhile."""
    seen: set[bytes] = set()
    result: list[bytes] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(file.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield result
    finally:
        done.set()
        watcher.join()
        result += seen


@pytest.mark.slow
@pytest.mark.parametrize("commands", [READING[:7], READING[7:], *WRITING], ids=lambda commands: commands[0])
def test_no_command_leaks_a_secret(home: Path, work: Path, commands: tuple[str, ...]) -> None:
    with argv_of_everything() as argv:
        said = {words: tool(words.split(), work=work, environment=environment(home)) for words in commands}
    assert {words: found for words, output in said.items() if (found := hits(output, SECRETS))} == {}
    assert hits(b"\n".join(argv), SECRETS) == set()
    planted = {home / name for name in FILES}
    files = [
        path for root in (home, work) for path in root.rglob("*") if path.is_file() and path not in planted
    ]
    assert files or commands not in WRITING
    assert {path: found for path in files if (found := hits(path.read_bytes(), SECRETS))} == {}


def test_support_archive_holds_no_secret_and_no_home(home: Path, work: Path) -> None:
    """The archive is compressed, so its files are read; the canary shows that a release's file is among them."""
    release = home / "state" / "deployments" / "box" / "releases" / ("a" * 12)
    release.mkdir(parents=True)
    planted = {**variables(), "weights": str(home / "models"), "mark": "is-in-the-archive"}
    (release / "plan.json").write_text(json.dumps(planted))
    (release / "failure.log").write_text(
        "".join(f"ERROR {secret} at {home}\n" for secret in variables().values())
    )
    output = tool(["support"], work=work, environment=environment(home))
    assert hits(output, SECRETS) == set()
    with tarfile.open(work / "deckard-support.tar.gz") as archive:
        files = {each.name: archive.extractfile(each) for each in archive.getmembers()}
        content = b"".join(file.read() for file in files.values() if file)
    assert b"is-in-the-archive" in content
    assert b"ERROR [secret]" in content
    assert hits(content, SECRETS) == set()
    assert str(home).encode() not in content


def test_new_key_is_printed_once_and_not_stored(home: Path, work: Path) -> None:
    key = tool(["keys", "add", "alice"], work=work, environment=environment(home)).split()[0].decode()
    others = [
        tool(words.split(), work=work, environment=environment(home)) for words in ("keys list", "status")
    ]
    assert not any(hits(output, (key,)) for output in others)
    holding = [path for path in home.rglob("*") if path.is_file() and hits(path.read_bytes(), (key,))]
    assert holding == []
    assert (home / "state" / "keys" / "keys.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("words", IN_ARGUMENTS)
def test_typed_secret_is_not_repeated(home: Path, work: Path, words: str) -> None:
    secret = "typed-in-q7Wz9"
    output = tool(
        ["plan", "--profile", "cpu", *words.format(secret).split()], work=work, environment=environment(home)
    )
    assert b"error: " in output
    assert hits(output, (secret,)) == set()


@pytest.mark.parametrize(("variable", "leaks"), [("HF_TOKEN", False), ("NO_SECRETS_NAME", True)])
def test_traceback_is_redacted(home: Path, work: Path, variable: str, *, leaks: bool) -> None:
    """A library that puts the token into its error; the second is the control: without redaction it would be seen."""
    (work / "sitecustomize.py").write_text(RAISES.format(variable) + "huggingface_hub.get_token = broken\n")
    changed = {**environment(home), "PYTHONPATH": f"{work}:{CHECKOUT}", "NO_SECRETS_NAME": canary("HF_TOKEN")}
    if leaks:
        del changed["HF_TOKEN"]
    output = tool(["lock", "--profile", "spark"], work=work, environment=changed)
    assert b"this is a bug in deckard-deploy" in output
    assert (hits(output, (canary("HF_TOKEN"),)) != set()) is leaks
