"""Render shell lines that can be pasted, `vllm serve …` and `docker run …`, from a LaunchPlan."""

import csv
import io
import shlex
from collections.abc import Iterable

from deckard_deploy.planning.arguments import Line, option_lines
from deckard_deploy.planning.plan import BindMount, CdiGpus, ChosenGpus, Gpus, LaunchPlan
from deckard_deploy.rendering.compose import PIDS_LIMIT, SCRATCH_OPTIONS
from deckard_deploy.rendering.gateway import endpoint
from deckard_deploy.rendering.templates import environment, shell_word


def render_command(plan: LaunchPlan, *, launch_id: str | None = None) -> str:
    """Return the `vllm serve` line with the environment in front."""
    notes = []
    if plan.runtime == "docker" and plan.container.network == "bridge":
        notes.append(
            f"inside the container, whose port {plan.container_port} the host publishes on {endpoint(plan)}"
        )
    first, *rest = option_lines(_arguments(plan, launch_id))
    lines = [f"{name}={shlex.quote(value)}" for name, value in plan.environment.items()]
    lines.append(_join((*plan.entrypoint, *first)))
    lines += map(_join, rest)
    return _script(notes, lines)


def render_run(plan: LaunchPlan, *, launch_id: str | None = None) -> str:
    """Return the `docker run` line, which starts no gateway.

    Raises ValueError for a plan without an image, and for one that needs the gateway.
    """
    if plan.image is None:
        raise ValueError(f"{plan.engine} runs without an image")
    if plan.gateway and (plan.gateway.exposed or plan.gateway.tls):
        raise ValueError(f"{plan.deployment} is exposed or speaks TLS, which needs the gateway")
    entrypoint, *inner = plan.entrypoint
    first, *rest = option_lines(_arguments(plan, launch_id))
    lines = [
        ("docker", "run", "--detach", "--name", plan.container_name, "--init"),
        ("--entrypoint", entrypoint),
        *_docker_options(plan, launch_id),
        (plan.image, *inner, *first),
        *rest,
    ]
    return _script([], map(_join, lines))


def _arguments(plan: LaunchPlan, launch_id: str | None) -> tuple[str, ...]:
    if not launch_id:
        return plan.arguments
    return plan.launched(launch_id).arguments


def _docker_options(plan: LaunchPlan, launch_id: str | None) -> list[Line]:
    container = plan.container
    lines = _label_options(plan, launch_id)
    if plan.platform:
        lines.append(("--platform", plan.platform))
    if isinstance(plan.gpus, CdiGpus):
        lines += [("--device", device) for device in plan.gpus.devices]
    elif plan.gpus:
        lines.append(("--gpus", _gpus_value(plan.gpus)))
    if container.network == "host":
        lines.append(("--network", "host"))
    else:
        lines.append(("--publish", f"{endpoint(plan)}:{plan.container_port}"))
    if container.ipc != "private":
        lines.append(("--ipc", container.ipc))
    if container.shm_size:
        lines.append(("--shm-size", container.shm_size))
    lines += [("--env", f"{name}={value}") for name, value in plan.environment.items()]
    lines += map(_mount, plan.all_mounts)
    if not plan.compatibility:
        lines += _confinement(plan)
        lines.append(("--log-driver", "json-file", "--log-opt", "max-size=20m", "--log-opt", "max-file=5"))
    lines.append(("--restart", container.restart, "--stop-timeout", str(container.stop_grace_period_s)))
    return [*lines, *_health_options(plan)]


def _label_options(plan: LaunchPlan, launch_id: str | None) -> list[Line]:
    lines: list[Line] = [
        ("--label", f"deckard.deployment={plan.deployment}"),
        ("--label", f"deckard.plan={plan.hash}"),
    ]
    if launch_id:
        lines.append(("--label", f"deckard.launch={launch_id}"))
    return lines


def _gpus_value(gpus: Gpus | ChosenGpus) -> str:
    if not gpus.ids:
        return str(gpus.count)
    # docker reads the value as a line of CSV, so the commas need inner quotes.
    return f'"device={",".join(gpus.ids)}"'


def _confinement(plan: LaunchPlan) -> list[Line]:
    """Return the options for the same confinement as compose._confinement."""
    lines: list[Line] = []
    if plan.user:
        lines.append(("--user", plan.user))
    security = ("--security-opt", "no-new-privileges:true", "--read-only", "--pids-limit", str(PIDS_LIMIT))
    lines.append(("--cap-drop", "ALL", *security))
    for folder in plan.scratch:
        lines.append(("--tmpfs", f"{folder}:{SCRATCH_OPTIONS}"))
    return lines


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
    if mount.source.startswith("~/"):  # the shell expands it at the start of a word only
        volume = f"{mount.source}:{mount.target}"
        if mount.read_only:
            volume += ":ro"
        return ("--volume", volume)
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    if mount.read_only:
        fields.append("readonly")
    # docker reads `--mount` as one CSV record, so a comma in a path needs CSV quotes.
    record = io.StringIO()
    csv.writer(record, lineterminator="").writerow(fields)
    return ("--mount", record.getvalue())


def _join(line: Iterable[str]) -> str:
    """Quote the words of a line and join them."""
    return " ".join(map(shell_word, line))


def _script(notes: Iterable[str], lines: Iterable[str]) -> str:
    template = environment().get_template("command.sh.j2")
    return template.render(notes=list(notes), lines=list(lines))
