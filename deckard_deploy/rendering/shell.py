"""LaunchPlan -> shell lines that can be pasted: `vllm serve …` and `docker run …`."""

import csv
import io
import shlex
from collections.abc import Iterable

from deckard_deploy.planning.arguments import Line, option_lines
from deckard_deploy.planning.plan import BindMount, LaunchPlan
from deckard_deploy.rendering.compose import PIDS_LIMIT, SCRATCH_OPTIONS
from deckard_deploy.rendering.templates import environment, shell_word


def render_command(plan: LaunchPlan, *, launch_id: str | None = None) -> str:
    """The `vllm serve` line, environment in front."""
    notes = []
    if plan.runtime == "docker" and plan.container.network == "bridge":
        notes.append(
            f"inside the container, whose port {plan.container_port} the host publishes on {_endpoint(plan)}"
        )
    arguments = plan.launched(launch_id).arguments if launch_id else plan.arguments
    assignments = [f"{name}={shlex.quote(value)}" for name, value in plan.environment.items()]
    first, *rest = option_lines(arguments)
    return _script(notes, [*assignments, _quoted((*plan.entrypoint, *first)), *map(_quoted, rest)])


def render_run(plan: LaunchPlan, *, launch_id: str | None = None) -> str:
    """The `docker run` line, without a gateway. Raises ValueError for a plan without an image, or one that needs it."""
    if plan.image is None:
        raise ValueError(f"{plan.engine} runs without an image")
    if plan.gateway and (plan.gateway.exposed or plan.gateway.tls):
        raise ValueError(f"{plan.deployment} is exposed or speaks TLS, which needs the gateway")
    arguments = plan.launched(launch_id).arguments if launch_id else plan.arguments
    entrypoint, *inner = plan.entrypoint
    first, *rest = option_lines(arguments)
    lines = [
        ("docker", "run", "--detach", "--name", plan.container_name, "--init"),
        ("--entrypoint", entrypoint),
        *_docker_options(plan, launch_id),
        (plan.image, *inner, *first),
        *rest,
    ]
    return _script([], map(_quoted, lines))


def _docker_options(plan: LaunchPlan, launch_id: str | None) -> list[Line]:
    container = plan.container
    lines: list[Line] = [
        ("--label", f"deckard.deployment={plan.deployment}"),
        ("--label", f"deckard.plan={plan.hash}"),
    ]
    if launch_id:
        lines.append(("--label", f"deckard.launch={launch_id}"))
    if plan.platform:
        lines.append(("--platform", plan.platform))
    if plan.gpus:
        # The inner quotes are docker's own: its value is a line of CSV.
        chosen = f'"device={",".join(plan.gpus.ids)}"'
        lines.append(("--gpus", chosen if plan.gpus.ids else str(plan.gpus.count)))
    if container.network == "host":
        lines.append(("--network", "host"))
    else:
        lines.append(("--publish", f"{_endpoint(plan)}:{plan.container_port}"))
    if container.ipc != "private":
        lines.append(("--ipc", container.ipc))
    if container.shm_size:
        lines.append(("--shm-size", container.shm_size))
    lines += [("--env", f"{name}={value}") for name, value in plan.environment.items()]
    lines += [_mount(mount) for mount in plan.all_mounts]
    if not plan.compatibility:
        lines += _confinement(plan)
        lines.append(("--log-driver", "json-file", "--log-opt", "max-size=20m", "--log-opt", "max-file=5"))
    lines.append(("--restart", container.restart, "--stop-timeout", str(container.stop_grace_period_s)))
    return [*lines, *_health_options(plan)]


def _confinement(plan: LaunchPlan) -> list[Line]:
    """As compose._confined."""
    user = [("--user", plan.user)] if plan.user else []
    scratch = [("--tmpfs", f"{folder}:{SCRATCH_OPTIONS}") for folder in plan.scratch]
    options = ("--security-opt", "no-new-privileges:true", "--read-only", "--pids-limit", str(PIDS_LIMIT))
    return [*user, ("--cap-drop", "ALL", *options), *scratch]


def _health_options(plan: LaunchPlan) -> list[Line]:
    check = plan.healthcheck
    if check is None:
        return []
    return [
        ("--health-cmd", shlex.join(check.command)),
        ("--health-interval", f"{check.interval_s}s", "--health-timeout", f"{check.timeout_s}s"),
        ("--health-retries", str(check.retries), "--health-start-period", f"{check.start_period_s}s"),
    ]


def _mount(mount: BindMount) -> Line:
    """docker reads `--mount` as one CSV record, so a comma in a path needs CSV quotes."""
    if mount.source.startswith("~/"):  # the shell expands it at the start of a word only
        return ("--volume", f"{mount.source}:{mount.target}" + (":ro" if mount.read_only else ""))
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    record = io.StringIO()
    csv.writer(record, lineterminator="").writerow([*fields, "readonly"] if mount.read_only else fields)
    return ("--mount", record.getvalue())


def _endpoint(plan: LaunchPlan) -> str:
    address = f"[{plan.address}]" if ":" in plan.address else plan.address
    return f"{address}:{plan.port}"


def _quoted(line: Iterable[str]) -> str:
    return " ".join(map(shell_word, line))


def _script(notes: Iterable[str], lines: Iterable[str]) -> str:
    return environment().get_template("command.sh.j2").render(notes=list(notes), lines=list(lines))
