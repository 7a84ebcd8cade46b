"""`qualify`: whether an engine of the catalog is ready for deployments, check by check.

The checks of the catalog need nothing else. Those of the release itself need its Python (`python`) and a checkout of
this project, whose programs run in it.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.metric_names import metric_names
from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.release_difference import compared
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, EngineSpec, HardwareProfile, ModelSpec
from deckard_deploy.catalog.translation import release_changes
from deckard_deploy.doctor.rules.engine import advisories
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations import client_table
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.patching import plugin
from deckard_deploy.patching.manifest import load_patch_set
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.rehearsal import assistant, gemma4
from deckard_deploy.resources import PACKAGE
from deckard_deploy.startup.phases import Phase, PhaseTracker
from deckard_deploy.system.ports import free_port

CHECKOUT = PACKAGE.parent
# Profiles are written for this release; every later one translates from it (catalog/translation.py).
FIRST_SCHEMA = "vllm-0.19.1"
# Rounding to bfloat16: that of the output is 2^-9 at most, and 0.32's emulation also multiplies in bfloat16.
LARGEST_ERROR = 0.006
START_S = 600  # the tiny model takes half a minute on idle cores
# What a CPU passes through; the others need a GPU.
CPU_PHASES = (Phase.IMPORTS, Phase.WEIGHTS, Phase.KV_CACHE, Phase.SERVER)
Verdict = Literal["ok", "fail", "not run"]


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    name: str
    verdict: Verdict
    detail: str


def qualify(engine_name: str, python: Path | None, report: Reporter) -> list[Check]:
    """Return the verdict of every check. python: that of an environment which has the release; None: without.

    Raises BadInputError for an unknown engine.
    """
    engine = library.engine(engine_name)
    if python is not None and not (CHECKOUT / "scripts").is_dir():
        raise BadInputError("--python needs a checkout of this project: its programs run in that Python")
    checks: list[Callable[[], Check]] = [
        lambda: changes(engine),
        lambda: metrics(engine),
        lambda: patches(engine),
        lambda: open_advisories(engine),
        lambda: retirement(engine),
    ]
    if python is not None:
        checks += [
            lambda: options(engine, python),
            lambda: command_lines(engine, python),
            lambda: plugin_layers(engine, python),
        ]
    rows = []
    for check in checks:
        rows.append(check())
        report.say(f"{rows[-1].verdict:8} {rows[-1].name}: {rows[-1].detail}")
    if python is None:
        missing = ("options", "command lines", "plugin layers", "start", "clients")
        return [*rows, *(Check(name, "not run", "needs --python") for name in missing)]
    for row in start(engine, python):
        rows.append(row)
        report.say(f"{row.verdict:8} {row.name}: {row.detail}")
    return rows


def changes(engine: EngineSpec) -> Check:
    """Check that the .changes.yaml answers for every change that a profile or model relies on."""
    old, new = option_schema(FIRST_SCHEMA), option_schema(engine.option_schema)
    lines = list(compared(old, new, release_changes(engine.option_schema)))
    unanswered = [line for answered, line in lines if not answered]
    detail = f"{len(lines)} since {FIRST_SCHEMA}, {len(unanswered)} without an answer"
    if unanswered:
        return Check("changes", "fail", f"{detail}: {unanswered[0]}")
    return Check("changes", "ok", detail)


def metrics(engine: EngineSpec) -> Check:
    """Check that the catalog lists the metrics of the release, which `monitor` and `top` read."""
    try:
        names = metric_names(engine.option_schema)
    except BadInputError as error:
        return Check("metrics", "fail", error.message)
    return Check("metrics", "ok", f"{len(names.metrics)} listed")


def patches(engine: EngineSpec) -> Check:
    """Describe what carries NVFP4_AWQ into the release: a patch set, or the plugin."""
    if engine.patch_set:
        names = ", ".join(patch.name for patch in load_patch_set(engine.patch_set).patches)
        return Check("patches", "ok", f"{engine.patch_set}: {names}")
    if engine.plugin:
        return Check(
            "patches", "ok", f"none; plugin {engine.plugin} {plugin.wheel_sha256(engine.plugin)[:12]}"
        )
    return Check("patches", "ok", "none, and no plugin")


def open_advisories(engine: EngineSpec) -> Check:
    """Name the advisories that are open for the release. An open one fails nothing: each has its mitigation."""
    found = [each.id for each in advisories() if each.is_open(engine.vllm_version)]
    return Check("advisories", "ok", f"{len(found)} open: {', '.join(found) or 'none known'}")


def retirement(engine: EngineSpec) -> Check:
    """Say which profiles take the engine, and when it leaves the catalog."""
    users = [name for name in listing.names("profiles") if library.profile(name).engine == engine.name]
    taken = f"default of {', '.join(users)}" if users else "default of no profile"
    return Check("retires", "ok", f"{engine.retires or 'not decided'}; {taken}")


def options(engine: EngineSpec, python: Path) -> Check:
    """Compare the committed schema with the release's own parser."""
    done = run_inside(python, "scripts/extract_option_schema.py", "--check")
    if done.returncode:
        return Check("options", "fail", last_words(done))
    schema = option_schema(engine.option_schema)
    detail = f"{len(schema.options)} options, {len(schema.environment)} variables, as its parser has them"
    return Check("options", "ok", detail)


def command_lines(engine: EngineSpec, python: Path) -> Check:
    """Give every line that the catalog allows for the engine to the release's own parser."""
    plans = list(plans_of(engine))
    lines = json.dumps([plan.launched("deckard-launch-qualify").arguments for plan in plans])
    done = run_inside(python, "scripts/parse_command_lines.py", text=lines)
    if done.returncode:
        return Check("command lines", "fail", last_words(done))
    answers = json.loads(done.stdout.splitlines()[-1])
    for plan, answer in zip(plans, answers, strict=True):
        if "error" in answer:
            return Check("command lines", "fail", f"{plan.model} on {plan.profile}: {answer['error']}")
    return Check("command lines", "ok", f"{len(plans)} of profiles, models and drafters accepted")


def plans_of(engine: EngineSpec) -> Iterator[LaunchPlan]:
    """Yield the plan of every profile, model and drafter that the catalog allows with the engine."""
    for profile in map(library.profile, listing.names("profiles")):
        for model in map(library.model, listing.names("models")):
            for drafter in ("none", *model.drafters):
                plan = plan_if_allowed(engine, profile, model, drafter)
                if plan:
                    yield plan


def plan_if_allowed(
    engine: EngineSpec, profile: HardwareProfile, model: ModelSpec, drafter: str
) -> LaunchPlan | None:
    """Return the plan of this combination; None if the catalog refuses it."""
    if engine.gpu != (profile.hardware.gpu_count > 0):
        return None
    choice = Deployment(model=model.name, drafter=drafter, engine=engine.name)
    try:
        return build_plan(resolve(choice, profile=profile))
    except BadInputError:
        return None


def plugin_layers(engine: EngineSpec, python: Path) -> Check:
    """Compare the release's layers, with the plugin in them, with float64 arithmetic over the same codes."""
    if engine.plugin is None:
        return Check("plugin layers", "not run", "the engine has no plugin")
    with tempfile.TemporaryDirectory() as folder:
        wheel = plugin.build(engine.plugin, Path(folder) / plugin.WHEEL)
        done = run_inside(python, "tests/e2e/modelopt_layers.py", first_on_path=wheel)
    if done.returncode or '{"module"' not in done.stdout:
        return Check("plugin layers", "fail", last_words(done))
    found = json.loads(done.stdout[done.stdout.index('{"module"') :])
    errors = {
        name: value["off"] for name, value in found.items() if name.startswith(("NVFP4", "tp2/", "nan/"))
    }
    worst = max(errors, key=lambda name: errors[name])
    verdict: Verdict = "ok" if errors[worst] < LARGEST_ERROR else "fail"
    return Check("plugin layers", verdict, f"{len(errors)} cases, at most {errors[worst]:.4f} off ({worst})")


def start(engine: EngineSpec, python: Path) -> Iterator[Check]:
    """Serve the tiny model: the phases that the log shows, and what clients get."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        command = serve_command(engine, folder, port)
        log = folder / "log"
        with log.open("wb") as out:
            server = subprocess.Popen(  # its own session: vLLM's processes end with it
                [str(python), *command],
                cwd=folder,
                env=server_environment(engine, folder),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            base = f"http://127.0.0.1:{port}"
            ready = client_table.wait_until_ready(base, lambda: server.poll() is None, START_S)
            yield phases_of(log.read_text(errors="replace"), ready=ready)
            if ready:
                yield clients(base)
            else:
                yield Check("clients", "not run", "the server did not start")
        finally:
            end_session(server)


def serve_command(engine: EngineSpec, folder: Path, port: int) -> list[str]:
    """Return the arguments of Python for a server of the tiny model, with what the engine can draft and load."""
    quantization = "nvfp4_awq" if engine.plugin else "none"
    target = gemma4.write(folder / "target", quantization=quantization)  # type: ignore[arg-type]
    command = ["-m", "vllm.entrypoints.cli.main", "serve", str(target), "--served-model-name", "tiny"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--max-model-len", "1024"]
    command += ["--max-num-seqs", "4", "--reasoning-parser", "gemma4", "--tool-call-parser", "gemma4"]
    command += ["--enable-auto-tool-choice"]
    if "mtp" in engine.drafter_methods:
        drafter = assistant.write(folder / "assistant", kind="good")
        command += ["--speculative-config", json.dumps({"model": str(drafter), "num_speculative_tokens": 4})]
    return command


def server_environment(engine: EngineSpec, folder: Path) -> dict[str, str]:
    """Return the variables of the server: the plugin, a small cache, no network, no compiler."""
    paths = [os.environ.get("PYTHONPATH", "")]
    if engine.plugin:
        paths.insert(0, str(plugin.build(engine.plugin, folder / plugin.WHEEL)))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_CACHE_ROOT": str(folder / "cache"),
    }


def phases_of(log: str, *, ready: bool) -> Check:
    """Check that the log's lines show every phase that a CPU passes through."""
    tracker = PhaseTracker(0.0)
    known = 0
    for line in log.splitlines():
        known += tracker.feed(line, 0.0) is not None
    seen = tracker.durations(0.0)
    missing = [phase.value for phase in CPU_PHASES if phase not in seen]
    if not ready:
        return Check(
            "start", "fail", f"after {tracker.progress.phase.value}: {log.strip().splitlines()[-1][:160]}"
        )
    if missing:
        return Check("start", "fail", f"no line of the log shows {', '.join(missing)}: startup/phases.yaml")
    shown = ", ".join(phase.value for phase in seen if phase is not Phase.CONTAINER)
    return Check(
        "start", "ok", f"{known} lines known; {shown}; {tracker.facts.kv_cache_tokens} tokens of KV cache"
    )


def clients(base: str) -> Check:
    """Ask as clients ask, and name what answered otherwise than it should."""
    answers = client_table.ask_all(base)
    wrong = [f"{name} ({problem})" for name, problem in answers.items() if problem]
    right = [name for name, problem in answers.items() if not problem]
    if wrong:
        return Check("clients", "fail", f"{', '.join(wrong)}; right: {', '.join(right)}")
    return Check("clients", "ok", ", ".join(right))


def end_session(server: "subprocess.Popen[bytes]") -> None:
    """End the server and every process of its session."""
    deadline = time.monotonic() + 20
    for number in (15, 9):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        while server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
    server.wait()


def run_inside(
    python: Path, program: str, *arguments: str, text: str = "", first_on_path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of this checkout in the engine's Python, to its end."""
    paths = [str(first_on_path) if first_on_path else "", os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [str(python), str(CHECKOUT / program), *arguments],
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of what a failed program wrote."""
    lines: list[Any] = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1][:200] if lines else f"exit code {done.returncode}"
