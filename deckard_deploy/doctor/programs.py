"""Facts from programs: nvidia-smi, kernel log, systemd. Each function returns fields of HostFacts.

The output of programs is parsed here and nowhere else. A line of another form is left out, never guessed.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
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
# nvidia-smi --help-query-gpu of 580.159.04. An older driver refuses the whole query for a field that it does not have.
_NEWER_FIELDS = ",mig.mode.current,fabric.state,fabric.status,gpu_recovery_action,compute_mode"
_INVALID_FIELD = "is not a valid field to query"  # seen, 580.159.04
_OLD_COUNT = GPU_FIELDS.count(",") + 1
_NEW_COUNT = _OLD_COUNT + _NEWER_FIELDS.count(",")
_NO_VALUE = ("n/a", "not supported", "not active", "not found", "")
LOGIND_CONF = "/etc/systemd/logind.conf"
WSL_FOLDER = "/usr/lib/wsl/lib"
WSL_NVIDIA_SMI = f"{WSL_FOLDER}/nvidia-smi"
_CSV = "--format=csv,noheader,nounits"
LOG_LINES = "5000"
# Xid: "NVRM: Xid (PCI:0000:cb:00): 13, pid=…" (github leptonai/gpud pull request 46). Driver out of memory: a
# line with "NVRM:" and "Out of memory [NV_ERR_NO_MEMORY] (0x00000051) returned from"
# (NVIDIA/open-gpu-kernel-modules issue 1358). Process killed: mm/oom_kill.c of the kernel. API mismatch: the client's
# and the module's version (stackhpc/ansible-slurm-appliance issue 287). earlyoom: kill.c of rfjakob/earlyoom.
# systemd-oomd: src/oom/oomd-manager.c of systemd. Open modules: the kernel log of a Blackwell GPU under the proprietary
# module (NVIDIA/open-gpu-kernel-modules issue 862). Secure Boot: kernel/module/signing.c, security/lockdown.
_EVENTS = (
    ("driver out of memory", re.compile(r"NVRM: .*NV_ERR_NO_MEMORY")),
    (
        "process killed for memory",
        re.compile(r"Out of memory: Killed process|Memory cgroup out of memory: Killed"),
    ),
    ("GPU error (Xid)", re.compile(r"NVRM: Xid \(")),
    ("driver versions differ", re.compile(r"NVRM: API mismatch")),
    ("process ended by earlyoom", re.compile(r"sending SIG(?:TERM|KILL) to process \d")),
    (
        "process ended by systemd-oomd",
        re.compile(r"(?:Killed|Marked) /\S{1,500} (?:for killing )?due to memory "),
    ),
    ("open kernel modules needed", re.compile(r"requires use of the NVIDIA open kernel modules")),
    (
        "module refused by Secure Boot",
        re.compile(
            r"[Ll]oading of (?:unsigned module|module with unavailable key) is rejected|unsigned module loading"
        ),
    ),
)
_LOG_FILES = ("/var/log/kern.log", "/var/log/dmesg")


def gpus(host: Host, target: Target) -> Fields:
    """Read the driver's list of GPUs, or of those that the target names."""
    answers = _query_gpus(host, target, GPU_FIELDS + _NEWER_FIELDS)
    if any(_INVALID_FIELD in answer.out for answer in answers):
        answers = _query_gpus(host, target, GPU_FIELDS)
    found: list[Gpu] = []
    for answer in answers:
        found += _gpus(
            answer.out
        )  # next to the message about a GPU that is lost stand the lines of the others
    first = answers[0]
    problem = _gpu_problem(first)
    if problem is None and not found:
        problem = f"nvidia-smi lists no GPU: {one_line(first.out) or 'no output'}"
    if any(gpu.mig == "Enabled" for gpu in found):
        found = _with_mig_devices(found, _nvidia_smi(host, "-L").out)
    return {"gpus": tuple(found), "gpu_problem": problem}


def _gpu_problem(answer: ProgramResult) -> str | None:
    """Return all lines of a failure in one: the second line of NVML is a detail of the first."""
    lines = [line.strip() for line in answer.out.splitlines() if line.strip()]
    if answer.problem is None or not answer.installed or not lines or "did not answer" in answer.problem:
        return answer.problem
    return one_line(f"nvidia-smi: {'; '.join(lines[:3])}", 240)


def _nvidia_smi(host: Host, *arguments: str) -> ProgramResult:
    """Run nvidia-smi. WSL has it in a folder that is not on every PATH (NVIDIA/NemoClaw issue 8794)."""
    answer = host.run("nvidia-smi", *arguments)
    path = host.path(WSL_NVIDIA_SMI)
    if answer.installed or not path.is_file():
        return answer
    answer = host.run(str(path), *arguments)
    if not answer.installed:
        return ProgramResult(
            problem=f"nvidia-smi is in {WSL_FOLDER} (WSL), and cannot be run", installed=False
        )
    if answer.problem:
        answer = replace(answer, problem=answer.problem.replace(str(path), "nvidia-smi"))
    return answer


def _query_gpus(host: Host, target: Target, fields: str, about: str = "gpu") -> list[ProgramResult]:
    """Return one answer for all GPUs, or one for each that the target names: --id takes a single one."""
    query = f"--query-{about}={fields}"
    if not target.gpu_ids:
        return [_nvidia_smi(host, query, _CSV)]
    return [_nvidia_smi(host, f"--id={each}", query, _CSV) for each in target.gpu_ids]


def _gpus(text: str) -> Iterator[Gpu]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) not in (_OLD_COUNT, _NEW_COUNT) or not cells[0].isdecimal():
            continue
        index, name, capability, driver, total, used, temperature, clock, power, state, utilization = cells[
            :_OLD_COUNT
        ]
        mig, fabric, fabric_status, recovery, compute_mode = cells[_OLD_COUNT:] or (None,) * 5
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
            problem=_problem_in(cells[1:_OLD_COUNT]) or _recommended(recovery),
            mig=_word(mig),
            fabric=_fabric(fabric, fabric_status),
            compute_mode=_word(compute_mode),
        )


def _problem_in(cells: list[str]) -> str | None:
    """Return the error that the driver prints in place of a value: [GPU requires reset], [Unknown Error], ERR!."""
    for cell in cells:
        text = cell.strip("[]")
        if text != cell and text.lower() not in _NO_VALUE and not _is_deprecation(text):
            return one_line(text, 60)
        if cell == "ERR!":
            return "ERR!"
    return None


def _is_deprecation(text: str) -> bool:
    return "deprecated" in text.lower()


def _recommended(action: str | None) -> str | None:
    """Return the driver's recommendation, gpu_recovery_action: GPU Reset, Node Reboot, Drain P2P ..."""
    word = _word(action)
    return None if word in (None, "None") else f"the driver recommends: {word}"


def _fabric(state: str | None, status: str | None) -> str | None:
    """Return the fabric's state; the status too if the registration has ended with an error."""
    state, status = _word(state), _word(status)
    if state == "Completed" and status not in (None, "Success"):
        return f"Completed: {status}"
    return state


def _word(cell: str | None) -> str | None:
    """Return the value of a cell in words; None for no value."""
    text = (cell or "").strip("[]")
    if not text or text.lower() in _NO_VALUE or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_ ]{0,40}", text):
        return None
    return text


def _with_mig_devices(gpus: list[Gpu], listing: str) -> list[Gpu]:
    """Add the slices in `nvidia-smi -L`, which follow the line of their GPU."""
    slices: dict[int, list[str]] = {}
    index = -1
    for line in listing.splitlines():
        gpu = re.match(r"GPU (\d{1,4}):", line)
        device = re.match(r"\s+MIG (\S{1,30})", line)
        if gpu:
            index = int(gpu[1])
        elif device:
            slices.setdefault(index, []).append(device[1])
    return [gpu.model_copy(update={"mig_devices": tuple(slices.get(gpu.index, ()))}) for gpu in gpus]


def gpu_processes(host: Host, target: Target) -> Fields:
    """Read the processes that compute on these GPUs."""
    found = []
    for answer in _query_gpus(host, target, "pid,process_name,used_memory", "compute-apps"):
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
    version = re.search(r"CUDA Version\s*:\s*(\d{1,3}\.\d{1,3})\b", _nvidia_smi(host).out)
    return {"cuda": version[1] if version else None}


def kernel_log(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """Read events of memory and GPUs in the kernel log, of two boots; without a journal from dmesg or from files."""
    answer = _journal(host, "0")
    if answer.problem or not answer.out.strip():
        answer = host.run("dmesg")
    if answer.problem:
        text = _kernel_log_file(host)
        if text is None:
            return {"kernel_log": KernelLog(problem=answer.problem)}
        answer = ProgramResult(text)
    events = [*_events(answer.out, "this boot"), *_events(_journal(host, "-1").out, "the boot before")]
    return {"kernel_log": KernelLog(events=tuple(events))}


def _journal(host: Host, boot: str) -> ProgramResult:
    """Return the lines of the kernel, and of the services that end processes for memory."""
    matches = (
        "_TRANSPORT=kernel",
        "+",
        "_SYSTEMD_UNIT=earlyoom.service",
        "+",
        "_SYSTEMD_UNIT=systemd-oomd.service",
    )
    return host.run("journalctl", "-b", boot, "-o", "cat", "-n", LOG_LINES, "--no-pager", "-q", *matches)


def _kernel_log_file(host: Host) -> str | None:
    for path in _LOG_FILES:
        text = host.read_end(path)
        if text is not None:
            return text
    return None


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
        remove_ipc=_removes_ipc(host),
    )
    return {"services": found}


def _unit_state(host: Host, unit: str) -> str:
    return host.run("systemctl", "is-active", unit).out.strip()


def _firewall(host: Host) -> bool | None:
    configuration = host.read("/etc/ufw/ufw.conf")
    if configuration is None:
        return None
    return re.search(r"(?m)^ENABLED=yes", configuration) is not None


def _removes_ipc(host: Host) -> bool | None:
    """Read RemoveIPC, which is on by default (logind.conf(5)). It spares root, and users with a lingering session."""
    user = host.environment.get("USER", "")
    if host.read(LOGIND_CONF) is None:
        return None
    is_root = user == "root" or host.environment.get("HOME") == "/root"
    if is_root or (user and host.path(f"/var/lib/systemd/linger/{user}").exists()):
        return False
    value = "yes"
    drop_ins = sorted(host.path(f"{LOGIND_CONF}.d").glob("*.conf"))
    for path in (LOGIND_CONF, *(f"{LOGIND_CONF}.d/{each.name}" for each in drop_ins)):
        for found in re.findall(r"(?m)^\s*RemoveIPC\s*=\s*(\w+)", host.read(path) or ""):
            value = found
    return value.lower() in ("yes", "true", "1", "on")


def _decimal(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text, re.ASCII) else None


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None


def _matching(pattern: str, text: str) -> str | None:
    return text if re.fullmatch(pattern, text, re.ASCII) else None
