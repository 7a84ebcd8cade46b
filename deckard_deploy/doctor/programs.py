"""Facts that programs tell: nvidia-smi, docker, the kernel log, systemd. Each returns fields of HostFacts.

What a program prints is taken apart here and nowhere else; a line that is not understood is left out, never guessed.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from deckard_deploy.doctor.facts import Docker, Gpu, GpuProcess, Image, KernelEvent, KernelLog, Services
from deckard_deploy.doctor.host import Answer, Host, one_line
from deckard_deploy.doctor.target import Target

Fields = dict[str, Any]

GPU_FIELDS = (
    "index,name,compute_cap,driver_version,memory.total,memory.used,temperature.gpu,clocks.sm,power.draw,pstate,"
    "utilization.gpu"
)
_CSV = "--format=csv,noheader,nounits"
LOG_LINES = "5000"
# Xid: "NVRM: Xid (PCI:0000:cb:00): 13, pid=…" (github leptonai/gpud pull request 46); the driver out of memory:
# its line holds "NVRM:" and "Out of memory [NV_ERR_NO_MEMORY] (0x00000051) returned from"
# (NVIDIA/open-gpu-kernel-modules issue 1358); the kernel's own words: mm/oom_kill.c.
_EVENTS = (
    ("driver out of memory", re.compile(r"NVRM: .*NV_ERR_NO_MEMORY")),
    (
        "process killed for memory",
        re.compile(r"Out of memory: Killed process|Memory cgroup out of memory: Killed"),
    ),
    ("GPU error (Xid)", re.compile(r"NVRM: Xid \(")),
)


def gpus(host: Host, target: Target) -> Fields:
    """The driver's list of GPUs, or of those that the target names."""
    answers = _asked_of_gpus(host, target, f"--query-gpu={GPU_FIELDS}")
    found = tuple(gpu for answer in answers if not answer.problem for gpu in _gpus(answer.out))
    said = answers[0]
    problem = said.problem or (
        None if found else f"nvidia-smi lists no GPU: {one_line(said.out) or 'no output'}"
    )
    return {"gpus": found, "gpu_problem": problem}


def _asked_of_gpus(host: Host, target: Target, query: str) -> list[Answer]:
    """One answer for all GPUs, or one for each that the target names: --id takes a single one (nvidia-smi(1))."""
    chosen = [[f"--id={each}"] for each in target.gpu_ids] or [[]]
    return [host.ask("nvidia-smi", *each, query, _CSV) for each in chosen]


def _gpus(text: str) -> Iterator[Gpu]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != GPU_FIELDS.count(",") + 1 or not cells[0].isdecimal():
            continue
        index, name, capability, driver, total, used, temperature, clock, power, state, busy = cells
        yield Gpu(
            index=int(index[:6]),
            name=one_line(name, 60),
            compute_capability=_matching(r"\d{1,3}\.\d{1,3}", capability),
            driver=_matching(r"\d{1,6}(\.\d{1,6})*", driver),
            memory_total_mib=_number(total),
            memory_used_mib=_number(used),
            temperature_c=_number(temperature),
            sm_clock_mhz=_number(clock),
            power_w=float(power) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", power, re.ASCII) else None,
            performance_state=_matching(r"P\d{1,2}", state),
            utilization_percent=_number(busy),
        )


def gpu_processes(host: Host, target: Target) -> Fields:
    """Who computes on these GPUs."""
    answers = _asked_of_gpus(host, target, "--query-compute-apps=pid,process_name,used_memory")
    found = []
    for line in (line for answer in answers if not answer.problem for line in answer.out.splitlines()):
        pid, _, rest = line.partition(",")  # a process may have a comma in its name
        name, comma, memory = rest.rpartition(",")
        number = _number(pid.strip())
        if comma and number is not None:
            found.append(GpuProcess(pid=number, name=one_line(name, 60), memory_mib=_number(memory.strip())))
    return {"gpu_processes": tuple(found)}


def cuda(host: Host, target: Target) -> Fields:  # noqa: ARG001  one signature for all
    """The CUDA version of the driver, which only the header tells."""
    version = re.search(r"CUDA Version\s*:\s*(\d{1,3}\.\d{1,3})\b", host.ask("nvidia-smi").out)
    return {"cuda": version[1] if version else None}


def docker(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """The engine and compose. `docker info` ends with status 1 and prints JSON all the same when no engine answers."""
    answer = host.ask("docker", "info", "--format", "{{json .}}")
    if not answer.installed:
        return {"docker": Docker(installed=False, problem=answer.problem)}
    info = _mapping(answer.out)
    runtimes = info.get("Runtimes")
    version = _text(info.get("ServerVersion"))
    compose = _matching(r"v?\d+\.\d+.*", host.ask("docker", "compose", "version", "--short").out.strip())
    problem = answer.problem or (None if version else "docker info: not the JSON that was expected")
    return {
        "docker": Docker(
            installed=True,
            problem=problem,
            version=version,
            architecture=_text(info.get("Architecture")),
            runtimes=tuple(sorted(str(name) for name in runtimes)) if isinstance(runtimes, dict) else (),
            compose=one_line(compose.removeprefix("v"), 40) if compose else None,
        )
    }


def docker_root(host: Host) -> str | None:
    """Where the engine keeps images."""
    root = host.ask("docker", "info", "--format", "{{.DockerRootDir}}").out.strip()
    return root if root.startswith("/") and root.isprintable() else None


def image(host: Host, target: Target) -> Fields:
    """The plan's image, when it is on this host."""
    if not target.image:
        return {}
    answer = host.ask("docker", "image", "inspect", "--format", "{{json .}}", target.image)
    found = _mapping(answer.out)
    if answer.problem or not found:
        return {}
    config = found.get("Config")
    environment = config.get("Env") if isinstance(config, dict) else None
    values = [str(entry) for entry in environment] if isinstance(environment, list) else []
    version = next((entry.partition("=")[2] for entry in values if entry.startswith("CUDA_VERSION=")), "")
    return {
        "image": Image(
            reference=target.image,
            architecture=_text(found.get("Architecture")),
            cuda=_matching(r"\d{1,3}\.\d{1,3}(\.\d{1,6})?", version),
        )
    }


def kernel_log(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """What the kernel said of memory and GPUs since boot and in the boot before; dmesg where there is no journal."""
    answer = _journal(host, "0")
    if answer.problem or not answer.out.strip():
        answer = host.ask("dmesg")
    if answer.problem:
        return {"kernel_log": KernelLog(problem=answer.problem)}
    events = [*_events(answer.out, "this boot"), *_events(_journal(host, "-1").out, "the boot before")]
    return {"kernel_log": KernelLog(events=tuple(events))}


def _journal(host: Host, boot: str) -> Answer:
    return host.ask("journalctl", "-k", "-b", boot, "-o", "cat", "-n", LOG_LINES, "--no-pager", "-q")


def _events(text: str, boot: str) -> Iterator[KernelEvent]:
    for kind, pattern in _EVENTS:
        lines = [line for line in text.splitlines() if pattern.search(line)]
        if lines:
            fields = {"kind": kind, "boot": boot, "count": len(lines), "last": one_line(lines[-1])}
            yield KernelEvent.model_validate(fields)


def services(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """What systemd says; all unknown on a machine without it."""
    units = ("earlyoom", "systemd-oomd", "graphical.target")
    *watchers, desktop = (host.ask("systemctl", "is-active", unit).out.strip() for unit in units)
    clock = host.ask("timedatectl", "show", "-p", "NTPSynchronized", "--value").out.strip()
    firewall = host.read("/etc/ufw/ufw.conf")
    return {
        "services": Services(
            early_oom="active" in watchers if "inactive" in watchers or "active" in watchers else None,
            desktop={"active": True, "inactive": False}.get(desktop),
            clock_synchronized={"yes": True, "no": False}.get(clock),
            firewall=None if firewall is None else re.search(r"(?m)^ENABLED=yes", firewall) is not None,
        )
    }


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None


def _matching(pattern: str, text: str) -> str | None:
    return text if re.fullmatch(pattern, text, re.ASCII) else None


def _text(value: object) -> str | None:
    return one_line(value, 80) if isinstance(value, str) and value else None


def _mapping(text: str) -> Fields:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
