"""The alerts of `monitor` under a real Prometheus: python -m tests.campaigns.alerts WHAT --engine ENGINE IMAGE ...

    load [--minutes N]       normal load: no alert may fire
    events [--only EVENT]    something happens to the engine or to nginx: its alert must fire, and no other may that the
                             event does not explain

vLLM serves in docker behind nginx, and `monitor up` runs Debian's Prometheus on its network, with the files as they are
rendered. `--gateway IMAGE` is what tests/e2e/image/gateway.sh prints. Needs root. Nothing watches the deployment in
`events`: `watch` mends most of these before an alert is due.
"""

import argparse
import contextlib
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

from tests.e2e.prometheus import alert_seconds, ask, make_image
from tests.support.ports import free_port
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
ANSWER_S = 120.0
STEP_S = 15  # of the rules
SLOWEST_ALERT_S = 600.0
CLIENTS, PAUSES_S, BURST, BURST_EVERY_S = 3, (1.0, 5.0), 12, 240.0


@dataclass
class Site:
    """A deployment with its Prometheus. choice: the options of `up`."""

    state: Path
    name: str
    choice: tuple[str, ...]
    port: int
    prometheus: int
    key: str = ""
    asked: list[tuple[float, str]] = field(default_factory=list)  # seconds, and why it failed or ""

    def tool(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "deckard_deploy", *arguments, "--state-dir", str(self.state)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=self.state,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{arguments[0]}: exit {done.returncode}: {done.stderr[-2000:]}"
        return done.stdout.strip()

    def up(self, ranks: int = 1) -> None:
        more = [
            "--set",
            f"data-parallel-size={ranks}",
            "--set",
            "environment.VLLM_CPU_OMP_THREADS_BIND=nobind",
        ]
        self.tool("up", *self.choice, *(more if ranks > 1 else ()))

    def ask(self, tokens: int = 8, words: int = 1, timeout_s: float = ANSWER_S) -> None:
        """Ask a question, and note how long the answer took."""
        body = {
            "model": "tiny-gemma4",
            "messages": [{"role": "user", "content": "Hello? " * words}],
            "max_tokens": tokens,
            "ignore_eos": True,
        }
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        began = time.monotonic()
        try:
            got = requests.post(
                f"http://127.0.0.1:{self.port}/v1/chat/completions",
                json=body,
                headers=headers,
                timeout=timeout_s,
            )
            failed = "" if got.ok else f"HTTP {got.status_code}"
        except requests.RequestException as error:
            failed = type(error).__name__
        self.asked.append((time.monotonic() - began, failed))

    def ask_aside(self, count: int, *, tokens: int = 8, timeout_s: float = ANSWER_S) -> None:
        """Ask so many questions at a time, and do not wait for their answers."""
        for _ in range(count):
            asker = threading.Thread(target=self.ask, args=(tokens, 1, timeout_s), daemon=True)
            asker.start()

    def cores(self) -> list[int]:
        """Return the process of each engine core, as this machine numbers them; none while no engine runs."""
        if not docker("ps", "--quiet", "--filter", f"name=^deckard-{self.name}$"):
            return []
        lines = docker("top", f"deckard-{self.name}", "-eo", "pid,args").splitlines()[1:]
        return sorted(int(line.split()[0]) for line in lines if "EngineCore" in line)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Event:
    """Something that happens. alert: what must fire. explained: other alerts that may fire with it."""

    name: str
    act: Callable[[Site], None]
    alert: str
    explained: frozenset[str] = frozenset()
    ranks: int = 1


def freeze_idle(site: Site) -> None:
    """Freeze every engine core of an engine that has nothing to do; then requests come."""
    for pid in site.cores():
        os.kill(pid, signal.SIGSTOP)
    site.ask_aside(4, timeout_s=SLOWEST_ALERT_S)


def freeze_working(site: Site) -> None:
    """Freeze every engine core amid long answers."""
    site.ask_aside(4, tokens=800, timeout_s=SLOWEST_ALERT_S)
    of_engine = f'sum(vllm:num_requests_running{{deployment="{site.name}"}})'
    eventually(lambda: [each for each in ask(site.prometheus, of_engine) if float(each["value"][1]) >= 2])
    for pid in site.cores():
        os.kill(pid, signal.SIGSTOP)


def freeze_rank(site: Site) -> None:
    """Freeze the second of two ranks; clients keep asking."""
    os.kill(site.cores()[-1], signal.SIGSTOP)
    threading.Thread(target=_keep_asking, args=(site, SLOWEST_ALERT_S), daemon=True).start()


def _keep_asking(site: Site, for_s: float) -> None:
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        site.ask_aside(1, timeout_s=SLOWEST_ALERT_S)
        time.sleep(5)


def kill_nginx(site: Site) -> None:
    docker("kill", f"deckard-{site.name}-gateway")


def open_nginx(site: Site) -> None:
    """Let in everybody, after a key was needed."""
    site.key = site.tool("keys", "add", "client")
    closed = f'deckard_gateway_open{{deployment="{site.name}"}} == 0'
    eventually(lambda: ask(site.prometheus, closed))
    site.tool("keys", "revoke", "client")
    site.tool("keys", "open")
    site.key = ""


def kill_engine(site: Site) -> None:
    docker("kill", f"deckard-{site.name}")


def restart_engine(site: Site) -> None:
    """Kill the engine, and start it again."""
    docker("kill", f"deckard-{site.name}")
    site.up()
    site.ask()


# An engine that was started again within a quarter of an hour before is reported throughout the event.
RESTARTED = frozenset({"Restarted"})
EVENTS = (
    Event("frozen before a step", freeze_idle, "RequestsStuck"),
    Event("frozen at work", freeze_working, "Stalled"),
    Event("nginx killed", kill_nginx, "GatewayDown"),
    Event("engine killed", kill_engine, "ServerDown"),
    Event("engine restarted", restart_engine, "Restarted", RESTARTED),
    Event("one rank frozen", freeze_rank, "RequestsStuck", RESTARTED, ranks=2),
    Event("nginx open", open_nginx, "GatewayOpen", RESTARTED),  # the last: it is reported for an hour
)


def recover(site: Site, ranks: int) -> None:
    """Thaw what is frozen, and start what does not run. Return when nothing but a restart is reported."""
    for pid in site.cores():
        os.kill(pid, signal.SIGCONT)
    site.up(ranks)
    eventually(lambda: ask(site.prometheus, "sum(up) == 2"), ANSWER_S)
    site.ask(tokens=4)
    others = 'absent(ALERTS{alertname!~"Restarted|GatewayOpen"})'
    eventually(lambda: ask(site.prometheus, others), SLOWEST_ALERT_S)


def happen(site: Site, event: Event) -> bool:
    """Let one event happen. Return True if its alert fired, and none that nothing explains."""
    recover(site, event.ranks)
    began = time.time()
    event.act(site)
    fires = f'ALERTS{{alertname="{event.alert}",alertstate="firing"}}'
    try:
        eventually(lambda: ask(site.prometheus, fires), SLOWEST_ALERT_S)
    except AssertionError:
        say(f"WRONG {event.name:20} {event.alert:13} NOT FIRED within {SLOWEST_ALERT_S:g} s")
        return False
    seconds = time.time() - began
    fired = {name for name, state in alert_seconds(site.prometheus, began, STEP_S) if state == "firing"}
    others = sorted(fired - {event.alert} - event.explained)
    verdict = "WRONG" if others else "ok"
    say(
        f"{verdict:5} {event.name:20} {event.alert:13} fired after {seconds:.0f} s; others: {others or 'none'}"
    )
    return not others


def run_events(site: Site, only: list[str] | None) -> bool:
    good = True
    for event in EVENTS:
        if only is None or event.name in only:
            good = happen(site, event) and good
    return good


def run_load(site: Site, minutes: float, seed: int) -> bool:
    """Ask as people do, with bursts. Return True if no alert has fired."""
    over, random = threading.Event(), Random(seed)
    began = time.time()
    clients = [
        threading.Thread(target=_client, args=(site, over, Random(random.random()))) for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    busiest = 0.0
    next_burst, minute = began + BURST_EVERY_S, 0
    while time.time() < began + 60 * minutes:
        if time.time() > next_burst:
            site.ask_aside(BURST, tokens=16)
            next_burst += BURST_EVERY_S
        busiest = max(busiest, os.getloadavg()[0])
        if time.time() > began + 60 * minute:
            say(f"minute {minute}: {len(site.asked)} questions, load {os.getloadavg()[0]:.1f}, "
                f"alerts {ask(site.prometheus, 'ALERTS') or 'none'}")  # fmt: skip
            minute += 10
        time.sleep(5)
    over.set()
    for client in clients:
        client.join()
    seen = alert_seconds(site.prometheus, began, STEP_S)
    times = sorted(seconds for seconds, failed in site.asked if not failed)
    failures = [failed for _, failed in site.asked if failed]
    say(f"{len(site.asked)} questions, {len(failures)} failed {sorted(set(failures))}")
    say(
        f"median {_share(times, 0.5):.1f} s, 95 % within {_share(times, 0.95):.1f} s, the slowest {times[-1]:.1f} s"
    )
    say(f"highest load average {busiest:.1f}")
    for (name, state), seconds in sorted(seen.items()):
        say(f"{name} was {state} for {seconds} s")
    fired = [name for name, state in seen if state == "firing"]
    say(f"{minutes:g} minutes of normal load: {'no alert fired' if not fired else f'FIRED: {fired}'}")
    return not fired


def _client(site: Site, over: threading.Event, random: Random) -> None:
    while not over.wait(random.uniform(*PAUSES_S)):
        site.ask(random.choice((8, 16, 32, 64)), random.choice((1, 5, 40)))


def _share(times: list[float], share: float) -> float:
    return times[int(share * (len(times) - 1))]


def say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


@contextlib.contextmanager
def watched_site(options: argparse.Namespace) -> Iterator[Site]:
    """Start a deployment, and Prometheus next to it; end both."""
    name = f"a{secrets.token_hex(3)}"
    image = f"deckard-deploy-test/prometheus:{name}"
    engine, engine_image = options.engine
    port, prometheus = free_port(), free_port()
    choice = ["--profile", "cpu", "--name", name, "--engine", engine, "--image", engine_image]
    settings = [f"gateway_image={options.gateway}", f"publish.port={port}"]
    for setting in settings:
        choice += ["--set", setting]
    with tempfile.TemporaryDirectory(prefix="alerts-") as folder:
        site = Site(Path(folder), name, tuple(choice), port, prometheus)
        make_image(image)
        # Grafana is not in Debian: a program that waits is in its place.
        waits = f'FROM {options.gateway}\nENTRYPOINT ["sleep", "infinity"]\n'
        grafana = f"deckard-deploy-test/waits:{name}"
        command = ["docker", "build", "--quiet", "--tag", grafana, "-"]
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        subprocess.run(command, input=waits.encode(), env=environment, capture_output=True, check=True)
        try:
            began = time.monotonic()
            site.up()
            say(f"{engine}: up after {time.monotonic() - began:.0f} s")
            ports = ("--prometheus-port", str(prometheus), "--grafana-port", str(free_port()))
            images = ("--prometheus-image", image, "--grafana-image", grafana)
            site.tool("monitor", "up", "--name", name, *ports, *images)
            eventually(lambda: ask(prometheus, 'up{job="gateway"} == 1'))
            yield site
        finally:
            site.tool("monitor", "down", "--name", name)
            site.tool("down", "--name", name)
            docker("rmi", "--force", image, grafana)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["load", "events"])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", metavar="EVENT", help="events by name")
    parser.add_argument("--engine", nargs=2, metavar=("ENGINE", "IMAGE"), required=True)
    parser.add_argument("--gateway", metavar="IMAGE", required=True)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    with watched_site(options) as site:
        if options.what == "load":
            good = run_load(site, options.minutes, options.seed)
        else:
            good = run_events(site, options.only)
    sys.exit(not good)


if __name__ == "__main__":
    main()
