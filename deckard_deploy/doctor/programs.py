"""Facts from programs: nvidia-smi, kernel log, systemd. Each function returns fields of HostFacts.

The output of programs is parsed here and nowhere else. A line of another form is left out, never guessed.
"""

import re
from collections.abc import Iterator
from typing import Any

from deckard_deploy.doctor.facts import Gpu, GpuProcess, KernelEvent, KernelLog, Services
from deckard_deploy.doctor.host import Host, ProgramResult
from deckard_deploy.doctor.target import Target
from deckard_deploy.system.text import one_line

Fields = dict[str, Any]

GPU_FIELDS = (
    "index,name,compute_cap,driver_version,memory.total,memory.used,temperature.gpu,clocks.sm,power.draw,"
    "pstate,utilization.gpu"
)
_CSV = "--format=csv,noheader,nounits"
LOG_LINES = "5000"
# Xid: "NVRM: Xid (PCI:0000:cb:00): 13, pid=…" (github leptonai/gpud pull request 46). Driver out of memory: a
# line with "NVRM:" and "Out of memory [NV_ERR_NO_MEMORY] (0x00000051) returned from"
# (NVIDIA/open-gpu-kernel-modules issue 1358). Process killed: mm/oom_kill.c of the kernel.
_EVENTS = (
    ("driver out of memory", re.compile(r"NVRM: .*NV_ERR_NO_MEMORY")),
    (
        "process killed for memory",
        re.compile(r"Out of memory: Killed process|Memory cgroup out of memory: Killed"),
    ),
    ("GPU error (Xid)", re.compile(r"NVRM: Xid \(")),
)


def gpus(host: Host, target: Target) -> Fields:
    """Read the driver's list of GPUs, or of those that the target names."""
    answers = _query_gpus(host, target, f"--query-gpu={GPU_FIELDS}")
    found: list[Gpu] = []
    for answer in answers:
        if not answer.problem:
            found += _gpus(answer.out)
    first = answers[0]
    problem = first.problem
    if problem is None and not found:
        problem = f"nvidia-smi lists no GPU: {one_line(first.out) or 'no output'}"
    return {"gpus": tuple(found), "gpu_problem": problem}


def _query_gpus(host: Host, target: Target, query: str) -> list[ProgramResult]:
    """Return one answer for all GPUs, or one for each that the target names: --id takes a single one."""
    if not target.gpu_ids:
        return [host.run("nvidia-smi", query, _CSV)]
    return [host.run("nvidia-smi", f"--id={each}", query, _CSV) for each in target.gpu_ids]


def _gpus(text: str) -> Iterator[Gpu]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != GPU_FIELDS.count(",") + 1 or not cells[0].isdecimal():
            continue
        index, name, capability, driver, total, used, temperature, clock, power, state, utilization = cells
        yield Gpu(
            index=int(index[:6]),
            name=one_line(name, 60),
            compute_capability=_matching(r"\d{1,3}\.\d{1,3}", capability),
            driver=_matching(r"\d{1,6}(\.\d{1,6})*", driver),
            memory_total_mib=_number(total),
            memory_used_mib=_number(used),
            temperature_c=_number(temperature),
            sm_clock_mhz=_number(clock),
            power_w=_decimal(power),
            performance_state=_matching(r"P\d{1,2}", state),
            utilization_percent=_number(utilization),
        )


def gpu_processes(host: Host, target: Target) -> Fields:
    """Read the processes that compute on these GPUs."""
    found = []
    for answer in _query_gpus(host, target, "--query-compute-apps=pid,process_name,used_memory"):
        if answer.problem:
            continue
        for line in answer.out.splitlines():
            process = _gpu_process(line)
            if process:
                found.append(process)
    return {"gpu_processes": tuple(found)}


def _gpu_process(line: str) -> GpuProcess | None:
    pid, _, rest = line.partition(",")
    name, comma, memory = rest.rpartition(",")  # a process may have a comma in its name
    number = _number(pid.strip())
    if not comma or number is None:
        return None
    return GpuProcess(pid=number, name=one_line(name, 60), memory_mib=_number(memory.strip()))


def cuda(host: Host, target: Target) -> Fields:  # noqa: ARG001  one signature for all
    """Read the CUDA version of the driver, which only the header of nvidia-smi contains."""
    version = re.search(r"CUDA Version\s*:\s*(\d{1,3}\.\d{1,3})\b", host.run("nvidia-smi").out)
    return {"cuda": version[1] if version else None}


def kernel_log(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """Read events of memory and GPUs in the kernel log, of two boots; from dmesg without a journal."""
    answer = _journal(host, "0")
    if answer.problem or not answer.out.strip():
        answer = host.run("dmesg")
    if answer.problem:
        return {"kernel_log": KernelLog(problem=answer.problem)}
    events = [*_events(answer.out, "this boot"), *_events(_journal(host, "-1").out, "the boot before")]
    return {"kernel_log": KernelLog(events=tuple(events))}


def _journal(host: Host, boot: str) -> ProgramResult:
    return host.run("journalctl", "-k", "-b", boot, "-o", "cat", "-n", LOG_LINES, "--no-pager", "-q")


def _events(text: str, boot: str) -> Iterator[KernelEvent]:
    all_lines = text.splitlines()
    for kind, pattern in _EVENTS:
        lines = list(filter(pattern.search, all_lines))
        if lines:
            fields = {"kind": kind, "boot": boot, "count": len(lines), "last": one_line(lines[-1])}
            yield KernelEvent.model_validate(fields)


def services(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """Read the state of services from systemd; unknown on a machine without it."""
    watchers = {_unit_state(host, "earlyoom"), _unit_state(host, "systemd-oomd")}
    early_oom = None
    if "active" in watchers:
        early_oom = True
    elif "inactive" in watchers:
        early_oom = False
    clock = host.run("timedatectl", "show", "-p", "NTPSynchronized", "--value").out.strip()
    found = Services(
        early_oom=early_oom,
        desktop={"active": True, "inactive": False}.get(_unit_state(host, "graphical.target")),
        clock_synchronized={"yes": True, "no": False}.get(clock),
        firewall=_firewall(host),
    )
    return {"services": found}


def _unit_state(host: Host, unit: str) -> str:
    return host.run("systemctl", "is-active", unit).out.strip()


def _firewall(host: Host) -> bool | None:
    configuration = host.read("/etc/ufw/ufw.conf")
    if configuration is None:
        return None
    return re.search(r"(?m)^ENABLED=yes", configuration) is not None


def _decimal(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text, re.ASCII) else None


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None


def _matching(pattern: str, text: str) -> str | None:
    return text if re.fullmatch(pattern, text, re.ASCII) else None
