"""Failures that users met in the field, one folder each, and what the product must say of them.

A folder has:

    README      the source of the case, and the requirement, in words
    case.json   `kind`, and `must` and `must_not`: regular expressions for the text that a user reads. Case does not
                matter, and a dot matches a line's end too. For log, follow, start and image also `signature`, the id
                that `diagnose` prints, and `next`, a regular expression for the fix that it prints.
    input       files that depend on the kind

The kinds, with their input and the text that is searched:

    log       engine.log: what `diagnose` prints. `exit_code` of the engine is 1 unless given; `line` adds the line it
              names
    follow    engine.log, and `outcome` and `detail` of every probe: the end of a start
    start     message.txt or words.txt, docker's message when it starts a container: what `diagnose` prints of it
    image     the same when it pulls an image; `hint_only: false` adds the message
    host      host.json (tests/support/recorded_host.py): doctor's findings, its disks, and the matching profile
    inspect   make.py, which writes a checkpoint into the folder of its argument: exit status and output
    set       set.txt, a line for each --set, and `profile`: exit status and messages of `plan`
    hub       server.json (tests/support/scripted_hub.py): the end of a pull
    http      for a gateway that runs; it is not run here
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.cli.main import cli
from deckard_deploy.doctor.collect import collect
from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.fitting import fit, matching_profile
from deckard_deploy.doctor.judge import evaluate_rules
from deckard_deploy.doctor.target import Folders, Target, target_for_plan
from deckard_deploy.errors import DeployError
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.startup.follow import Clock, follow
from deckard_deploy.startup.readiness import Outcome, Readiness
from tests.support.recorded_host import recorded_host
from tests.support.scripted_hub import scripted_hub
from tests.support.server_behaviours import FakeObservation

ROOT = Path(__file__).parents[2]
# A make.py may import the writer of tiny checkpoints from the module in which it was once.
MAKE_CHECKPOINT = """
import runpy, sys
from deckard_deploy import weights
from deckard_deploy.rehearsal import gemma4
sys.modules["deckard_deploy.weights.tiny_gemma4"] = weights.tiny_gemma4 = gemma4
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PULL = """
import sys
from pathlib import Path
from deckard_deploy.errors import DeployError
from deckard_deploy.weights import hub
from deckard_deploy.weights.pull import PullReporter, pull
try:
    pull(hub.connect().resolve("owner/model", None), Path(sys.argv[1]), PullReporter(print, lambda done, total: None))
    print("fetched")
except DeployError as error:
    print(f"{error.message}; try: {error.hint}")
"""


@dataclass(frozen=True)
class FieldCase:
    """One folder. settings: the content of case.json."""

    folder: Path
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def kind(self) -> str:
        return str(self.settings["kind"])

    def text(self, *names: str) -> str:
        """Return the content of the first of these files that exists. Raises FileNotFoundError without one."""
        for name in names:
            path = self.folder / name
            if path.exists():
                return path.read_text(encoding="utf-8")
        raise FileNotFoundError(f"{self.folder} has no {' and no '.join(names)}")


@dataclass(frozen=True)
class CaseResult:
    """The text for a case, and the differences to case.json. skipped: the case is not for this harness."""

    case: FieldCase
    text: str = ""
    differences: list[str] = field(default_factory=list)
    skipped: bool = False

    @property
    def passed(self) -> bool:
        return not self.differences


def load_case(folder: Path) -> FieldCase:
    """Return the case in a folder. Raises ValueError for an unknown kind or key."""
    settings = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    known = {
        "kind",
        "must",
        "must_not",
        "signature",
        "next",
        "exit_code",
        "line",
        "outcome",
        "detail",
        "hint_only",
        "profile",
    }
    if settings.get("kind") not in KINDS or settings.keys() - known:
        raise ValueError(f"{folder}/case.json has an unknown kind or key")
    return FieldCase(folder, settings)


def check_case(case: FieldCase) -> CaseResult:
    """Feed the case to the product; compare the text for the user with case.json."""
    answer = KINDS[case.kind]
    if answer is None:
        return CaseResult(case, skipped=True)
    try:
        text = answer(case)
    except Exception as error:  # noqa: BLE001  a bug of the product is a case that fails
        return CaseResult(case, differences=[f"cannot be run: {type(error).__name__}: {error}"])
    differences = _of_diagnose(case)
    for pattern in case.settings.get("must", ()):
        if not re.search(pattern, text, re.IGNORECASE | re.DOTALL):
            differences.append(f"does not say {pattern!r}")
    for pattern in case.settings.get("must_not", ()):
        if re.search(pattern, text, re.IGNORECASE | re.DOTALL):
            differences.append(f"says {pattern!r}")
    return CaseResult(case, text, differences)


def _diagnosed(text: str, *options: str) -> dict[str, str]:
    """Return what `diagnose - --json` prints of a text."""
    done = CliRunner().invoke(cli, ["diagnose", "-", "--json", *options], input=text.encode())
    if done.exit_code:
        raise RuntimeError(f"diagnose exited with {done.exit_code}: {done.output}")
    facts = json.loads(done.stdout)
    return {name: value or "" for name, value in facts.items()}


def _log(case: FieldCase) -> str:
    found = _diagnosed(case.text("engine.log"), "--exit-code", str(case.settings.get("exit_code", 1)))
    text = f"{found['signature']}: {found['cause']}; try: {found['fix']}"
    if case.settings.get("line"):
        text += f"\nfirst line: {found['first_fatal_line']}"
    return text


class _RunningEngine:
    """An engine that runs on, with all lines of its log at once."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def poll_lines(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines

    def observe(self) -> FakeObservation:
        return FakeObservation()

    def tail_gateway(self, _: int) -> list[str]:
        return []


def _follow(case: FieldCase) -> str:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    engine = _RunningEngine(case.text("engine.log").splitlines())
    answer = Readiness(Outcome[case.settings["outcome"]], case.settings["detail"])
    clock = Clock(now=lambda: now, sleep=sleep)
    try:
        follow(engine, lambda: answer, stalled_after_s=300, on_progress=lambda _: None, clock=clock)
    except DeployError as error:
        return f"{error.message}; try: {error.hint}"
    return "ready"


def _start(case: FieldCase) -> str:
    found = _diagnosed(case.text("message.txt", "words.txt"))
    return f"try: {found['cause']}; {found['fix']}"


def _image(case: FieldCase) -> str:
    message = case.text("message.txt", "words.txt").strip()
    found = _diagnosed(message)
    shown = "" if case.settings.get("hint_only", True) else message
    return f"{shown}; try: {found['cause']}; {found['fix']}"


def _of_diagnose(case: FieldCase) -> list[str]:
    """Return how signature and fix that `diagnose` prints differ from those of the case."""
    expected = case.settings.get("signature")
    if expected is None:
        return []
    options = []
    if case.kind == "log":
        options = ["--exit-code", str(case.settings.get("exit_code", 1))]
    found = _diagnosed(case.text("engine.log", "message.txt", "words.txt"), *options)
    differences = []
    if found["signature"] != expected:
        differences.append(f"is {found['signature'] or 'nothing'}, not {expected}")
    if not re.search(case.settings["next"], found["fix"], re.IGNORECASE):
        differences.append(f"proposes {found['fix']!r}")
    return differences


def _host(case: FieldCase) -> str:
    description = json.loads(case.text("host.json"))
    with tempfile.TemporaryDirectory() as name:
        host = recorded_host(description, Path(name))
        target = _target(description.get("profile"))
        facts = collect(target, host, port_problem=lambda _address, _port: None)
        lines = []
        for finding in evaluate_rules(facts, target):
            lines.append(f"{finding.severity.value} {finding.rule}: {finding.what}; try: {finding.fix}")
        for disk in facts.disks:
            lines.append(f"disk for {disk.purpose}: {str(disk.path).removeprefix(str(host.root))}")
    return "\n".join([*lines, f"made_for: {_matching(facts)}"])


def _target(profile: str | None) -> Target:
    if profile is None:
        return Target(folders=Folders(weights=Path("/tmp"), caches=()))
    resolved = resolve(Deployment(), profile=library.profile(profile))
    return target_for_plan(resolved, build_plan(resolved), models=Path("/tmp"))


def _matching(facts: HostFacts) -> str:
    fits = [fit(library.profile(name), facts) for name in listing.names("profiles")]
    try:
        return matching_profile(facts, fits).profile
    except DeployError as error:
        return f"{error.message}; try: {error.hint}"


def _inspect(case: FieldCase) -> str:
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        made = _python("-c", MAKE_CHECKPOINT, str(case.folder / "make.py"), str(model))
        if made.returncode:
            raise RuntimeError(f"{case.folder}/make.py: {made.stderr}")
        done = _python("-m", "deckard_deploy", "inspect", str(model))
        return f"exit {done.returncode}\n{done.stdout}{done.stderr}".replace(name, "")


def _set(case: FieldCase) -> str:
    options = []
    for line in case.text("set.txt").splitlines():
        options += ["--set", line]
    with tempfile.TemporaryDirectory() as name:
        done = _python(
            "-m", "deckard_deploy", "plan", "--profile", case.settings["profile"], *options, cwd=name
        )
    return f"exit {done.returncode}\n{done.stderr}"


def _hub(case: FieldCase) -> str:
    script = json.loads(case.text("server.json"))
    began = time.monotonic()
    with scripted_hub(script) as hub, tempfile.TemporaryDirectory() as name:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "HF_ENDPOINT": hub.url,
            **script.get("env", {}),
        }
        done = _python("-c", PULL, str(Path(name) / "model"), environment=environment)
    return f"{done.stdout}{done.stderr}after {time.monotonic() - began:.0f} s"


def _python(
    *arguments: str, environment: dict[str, str] | None = None, cwd: str = "/"
) -> "subprocess.CompletedProcess[str]":
    """Run a Python of its own with this checkout's package."""
    variables = {**(environment or os.environ), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=variables, cwd=cwd, capture_output=True, text=True, check=False
    )


KINDS: dict[str, Callable[[FieldCase], str] | None] = {
    "log": _log,
    "follow": _follow,
    "start": _start,
    "image": _image,
    "host": _host,
    "inspect": _inspect,
    "set": _set,
    "hub": _hub,
    "http": None,
}
