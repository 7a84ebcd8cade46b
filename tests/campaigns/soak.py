"""A soak: python -m tests.campaigns.soak [--minutes N] [--seed N] [--engine ENGINE IMAGE] [--gateway IMAGE], as root.

vLLM with two data-parallel ranks serves eight clients behind nginx, in a docker daemon of its own, under `watch`.
Meanwhile things happen to it, in an order that the seed decides: the daemon is restarted; nginx, the engine or one of
its ranks is killed or frozen; the disk is full; keys change; `up` runs again, changes a setting, or is rolled back.

For each event a line: whether the engine had to be started again, whether it was, how long until everything answered,
and how many requests were lost until then. Exits with 1 if an engine was stopped without need or not restarted where
it had to be, if a request was lost outside of an event's window or inside of one that may lose none, or if something
is left at the end.

`watch` restarts an engine twice an hour at most. Before each event its record is aged by an hour.
"""

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import requests

from tests.e2e.private_daemon import PrivateDaemon, private_daemon
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
NAME = "soak"
CLIENTS, REQUEST_TIMEOUT_S, PAUSE_S = 8, 60.0, 0.5
INTERVAL_S, DEADLINE_S = 5, 30  # of watch
RECOVERY_S = 600.0
SETTLE_S = 15.0  # of normal load after each event, in which nothing may be lost
STATE_DISK = "1g"
OWN_NETWORK = "DECKARD_SOAK_OWN_NETWORK"  # set in the network namespace of the soak


@dataclass(frozen=True)
class Answer:
    """One request of a client. failed: why, or "" if it was answered."""

    began: float
    ended: float
    failed: str


@dataclass(frozen=True)
class Event:
    """Something that happens. restarts: the engine has to be started again. loses: requests may be lost."""

    name: str
    act: Callable[["Soak"], None]
    restarts: bool
    loses: bool


@dataclass
class Soak:
    """One run: the daemon, the deployment, and everything that was seen."""

    daemon: PrivateDaemon | None
    state: Path
    choice: tuple[str, ...]
    port: int
    random: Random
    key: str = ""
    sequences: int = 16
    watch: "subprocess.Popen[str] | None" = None
    answers: list[Answer] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def environment(self) -> dict[str, str]:
        host = {"DOCKER_HOST": self.daemon.host} if self.daemon else {}
        return {**os.environ, **host, "PYTHONPATH": str(ROOT)}

    def tool(self, *arguments: str, code: int = 0) -> str:
        """Run a verb. Return its output. Note another exit code as a problem."""
        done = subprocess.run(
            [sys.executable, "-m", "deckard_deploy", *arguments, "--state-dir", str(self.state)],
            env=self.environment, cwd=self.state, capture_output=True, text=True, check=False, timeout=1200,
        )  # fmt: skip
        if done.returncode != code:
            self.problem(f"{' '.join(arguments[:2])}: exit {done.returncode}: {done.stderr.strip()[-4000:]}")
        return done.stdout

    def up(self) -> None:
        self.tool("up", *self.choice, "--set", f"max-num-seqs={self.sequences}")

    def docker(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def engine(self) -> tuple[str, ...]:
        """Return the id and the start of the engine's container."""
        return tuple(self.docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", f"deckard-{NAME}").split())

    def processes(self, container: str) -> dict[int, str]:
        """Return the processes of a container, as this machine numbers them."""
        found = {}
        for line in self.docker("top", container, "-eo", "pid,args").splitlines()[1:]:
            pid, _, command = line.strip().partition(" ")
            found[int(pid)] = command.strip()
        return found

    def problem(self, what: str) -> None:
        self.problems.append(what)
        self.say(f"PROBLEM  {what}")

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)

    def start_watch(self) -> None:
        """Start `watch` with a record as an hour ago."""
        record = self.state / "deployments" / NAME / "watch.json"
        if record.exists():
            found = json.loads(record.read_text())
            for restart in found["restarts"]:
                restart["monotonic_s"] -= 3600
            record.write_text(json.dumps(found))
        command = [
            sys.executable,
            "-m",
            "deckard_deploy",
            "watch",
            "--name",
            NAME,
            "--state-dir",
            str(self.state),
        ]
        command += ["--interval", str(INTERVAL_S), "--deadline", str(DEADLINE_S)]
        self.watch = subprocess.Popen(
            command, env=self.environment, cwd=self.state, stderr=subprocess.STDOUT, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def end_watch(self) -> list[str]:
        """End `watch`. Return what it has said."""
        if self.watch is None:
            return []
        self.watch.send_signal(signal.SIGTERM)
        said, _ = self.watch.communicate(timeout=120)
        self.watch = None
        return said.splitlines()

    def watched_state(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            return str(json.loads((self.state / "deployments" / NAME / "watch.json").read_text())["state"])
        return "none"

    def ask(self, timeout_s: float = REQUEST_TIMEOUT_S) -> str:
        """Ask for a completion. Return why it failed, "" if it was answered."""
        question = {
            "model": "tiny-gemma4",
            "messages": [{"role": "user", "content": "Hello?"}],
            "max_tokens": 8,
        }
        try:
            got = requests.post(
                f"http://127.0.0.1:{self.port}/v1/chat/completions",
                json=question, headers={"Authorization": f"Bearer {self.key}"}, timeout=timeout_s,
            )  # fmt: skip
        except requests.RequestException as error:
            return type(error).__name__
        return "" if got.ok else f"HTTP {got.status_code}"

    def client(self) -> None:
        """Ask one question after the other until the soak is over."""
        while not self.over.is_set():
            began = time.monotonic()
            failed = self.ask()
            self.answers.append(Answer(began, time.monotonic(), failed))
            self.over.wait(PAUSE_S)


def restart_daemon(soak: Soak) -> None:
    assert soak.daemon is not None
    soak.daemon.end(signal.SIGTERM)
    soak.daemon.start()


def kill_nginx(soak: Soak) -> None:
    soak.docker("kill", "--signal", "KILL", f"deckard-{NAME}-gateway")


def crash_nginx(soak: Soak) -> None:
    master = min(soak.processes(f"deckard-{NAME}-gateway"))
    os.kill(master, signal.SIGKILL)


def kill_engine(soak: Soak) -> None:
    soak.docker("kill", "--signal", "KILL", f"deckard-{NAME}")


def engine_cores(soak: Soak) -> list[int]:
    return sorted(
        pid for pid, command in soak.processes(f"deckard-{NAME}").items() if "EngineCore" in command
    )


def freeze_engine(soak: Soak) -> None:
    for pid in engine_cores(soak):
        os.kill(pid, signal.SIGSTOP)


def freeze_rank(soak: Soak) -> None:
    os.kill(soak.random.choice(engine_cores(soak)), signal.SIGSTOP)


def fill_disk(soak: Soak) -> None:
    fill = soak.state / "fill"
    with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    try:
        soak.tool("keys", "add", f"full-{secrets.token_hex(3)}", code=3)
        soak.tool("status", "--name", NAME)
        time.sleep(2 * INTERVAL_S)
    finally:
        fill.unlink()


def change_keys(soak: Soak) -> None:
    name = f"k{secrets.token_hex(3)}"
    soak.tool("keys", "add", name)
    soak.tool("keys", "revoke", name)


def up_again(soak: Soak) -> None:
    soak.up()


def change_setting(soak: Soak) -> None:
    soak.sequences = 12 + (soak.sequences - 11) % 8
    soak.up()


def roll_back(soak: Soak) -> None:
    soak.tool("rollback", "--name", NAME)
    soak.sequences = plan_sequences(soak)


def plan_sequences(soak: Soak) -> int:
    """Return max-num-seqs of the release that is current."""
    plan = json.loads((soak.state / "deployments" / NAME / "current" / "plan.json").read_text())
    arguments = plan["arguments"]
    return int(arguments[arguments.index("--max-num-seqs") + 1])


EVENTS = (
    Event("daemon restarted", restart_daemon, restarts=True, loses=True),
    Event("nginx killed", kill_nginx, restarts=False, loses=True),
    Event("nginx crashed", crash_nginx, restarts=False, loses=True),
    Event("engine killed", kill_engine, restarts=True, loses=True),
    Event("engine frozen", freeze_engine, restarts=True, loses=True),
    Event("one rank frozen", freeze_rank, restarts=True, loses=True),
    Event("disk full", fill_disk, restarts=False, loses=False),
    Event("keys changed", change_keys, restarts=False, loses=False),
    Event("up again", up_again, restarts=False, loses=False),
    Event("setting changed", change_setting, restarts=True, loses=True),
    Event("rolled back", roll_back, restarts=True, loses=True),
)


def order(random: Random, options: argparse.Namespace) -> Iterator[Event]:
    """Yield events: every one once in each round, each round in another order. A rollback needs a change before."""
    possible = [event for event in EVENTS if options.only is None or event.name in options.only]
    if options.shared_daemon:
        possible = [event for event in possible if event.act is not restart_daemon]
    if options.ranks == 1:
        possible = [event for event in possible if event.act is not freeze_rank]
    changed = False
    while True:
        for event in random.sample(possible, len(possible)):
            if event.act is roll_back and not changed:
                continue
            changed = changed or event.act is change_setting
            yield event


def recover(soak: Soak, before: tuple[str, ...], event: Event) -> None:
    """Wait until the engine has been replaced, where it has to be, and until everything answers."""
    deadline = time.monotonic() + RECOVERY_S
    good = 0
    while good < 4:  # both ranks answer, and not by chance
        if time.monotonic() > deadline:
            soak.problem(f"{event.name}: not well again after {RECOVERY_S:g} s")
            return
        replaced = soak.engine() != before or not event.restarts
        well = replaced and soak.watched_state() == "healthy" and soak.ask(DEADLINE_S) == ""
        good = good + 1 if well else 0
        time.sleep(0.5)


def happen(soak: Soak, event: Event) -> None:
    """Let one event happen, wait until its end, and judge what was seen."""
    soak.start_watch()
    while soak.watched_state() != "healthy":
        time.sleep(0.2)
    time.sleep(INTERVAL_S)  # its first round: it knows the daemon by then
    before, began = soak.engine(), time.monotonic()
    event.act(soak)
    recover(soak, before, event)
    recovered = time.monotonic()
    after = soak.engine()
    time.sleep(SETTLE_S)
    said = soak.end_watch()
    ended = time.monotonic()
    lost = [
        each for each in list(soak.answers) if each.failed and each.ended >= began and each.began <= recovered
    ]
    outside = [
        each for each in list(soak.answers) if each.failed and each.began > recovered and each.ended <= ended
    ]
    replaced = after != before
    verdict = "ok"
    if replaced != event.restarts:
        verdict = "WRONG"
        soak.problem(
            f"{event.name}: engine replaced: {replaced}, expected {event.restarts}; watch: {said[-5:]}"
        )
    if outside or (lost and not event.loses):
        verdict = "WRONG"
        soak.problem(
            f"{event.name}: lost {len(lost)} in its window, {len(outside)} outside: {(lost + outside)[:3]}"
        )
    soak.say(
        f"{verdict:5} {event.name:17} engine replaced: {'yes' if replaced else 'no':3} "
        f"(expected {'yes' if event.restarts else 'no':3})  well again after {recovered - began:5.0f} s  "
        f"lost {len(lost):3} in the window, {len(outside)} outside"
    )


def left_over(soak: Soak) -> list[str]:
    """Return what `down` has left in docker, and temporary files of the state directory."""
    ours = ("--filter", f"label=com.docker.compose.project=deckard-{NAME}")
    left = soak.docker("ps", "-aq", *ours).split() + soak.docker("volume", "ls", "-q", *ours).split()
    left += soak.docker("network", "ls", "-q", *ours).split()
    left += [str(path) for path in soak.state.rglob(".tmp-*")]
    return left


def copy_image(daemon: PrivateDaemon, image: str) -> None:
    """Copy an image of this machine's docker into the daemon."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
        environment = {**os.environ, "DOCKER_HOST": daemon.host}
        subprocess.run(
            ["docker", "load"], stdin=save.stdout, env=environment, check=True, capture_output=True
        )


def run(options: argparse.Namespace) -> Soak:
    """Run the soak. Return what was seen."""
    random = Random(options.seed)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-"))
        daemon = None
        if not options.shared_daemon:
            daemon = stack.enter_context(private_daemon(network=()))
            for image in (options.engine[1], options.gateway):
                copy_image(daemon, image)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STATE_DISK}", "tmpfs", folder], check=True)
        try:
            return _run(options, daemon, Path(folder), random)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=False)


def _run(options: argparse.Namespace, daemon: PrivateDaemon | None, state: Path, random: Random) -> Soak:
    port = free_port()
    engine, image = options.engine
    settings = [f"gateway_image={options.gateway}", f"publish.port={port}"]
    if options.ranks > 1:
        settings += [f"data-parallel-size={options.ranks}", "environment.VLLM_CPU_OMP_THREADS_BIND=nobind"]
    choice = ["--profile", "cpu", "--name", NAME, "--engine", engine, "--image", image]
    for setting in settings:
        choice += ["--set", setting]
    soak = Soak(daemon, state, tuple(choice), port, random)
    soak.say(
        f"seed {options.seed}, {options.minutes:g} minutes, {engine}, {options.ranks} ranks, {CLIENTS} clients"
    )
    soak.key = soak.tool("keys", "add", "client").strip()
    began = time.monotonic()
    soak.up()
    soak.say(f"up after {time.monotonic() - began:.0f} s")
    clients = [threading.Thread(target=soak.client) for _ in range(CLIENTS)]
    try:
        if soak.problems:
            return soak
        for client in clients:
            client.start()
        until = time.monotonic() + 60 * options.minutes
        for number, event in enumerate(order(random, options)):
            if time.monotonic() > until or number == options.events:
                break
            happen(soak, event)
    finally:
        soak.over.set()
        for client in clients:
            if client.is_alive():
                client.join()
        soak.end_watch()
        soak.tool("down", "--name", NAME)
    left = left_over(soak)
    if left:
        soak.problem(f"left: {left}")
    lost = sum(bool(each.failed) for each in soak.answers)
    soak.say(
        f"{len(soak.answers)} requests, {lost} lost; left over: {len(left)}; {len(soak.problems)} problems"
    )
    return soak


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--events", type=int, help="the most events")
    parser.add_argument("--only", nargs="*", metavar="EVENT", help="events by name")
    parser.add_argument(
        "--shared-daemon", action="store_true", help="this machine's docker, which is not restarted"
    )
    parser.add_argument("--engine", nargs=2, metavar=("ENGINE", "IMAGE"), required=True)
    parser.add_argument("--gateway", metavar="IMAGE", required=True)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    if not options.shared_daemon and OWN_NETWORK not in os.environ:
        # docker's DNS, which nginx needs, works by iptables, and those of this machine's own daemon are left alone.
        os.environ[OWN_NETWORK] = "1"
        os.execvp(  # noqa: S606  no shell is wanted
            "unshare", ["unshare", "--net", sys.executable, "-m", "tests.campaigns.soak", *sys.argv[1:]]
        )
    if not options.shared_daemon:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    sys.exit(bool(run(options).problems))


if __name__ == "__main__":
    main()
