"""Output of programs: recorded, and malformed."""

from dataclasses import replace

import pytest

from deckard_deploy.doctor import programs
from deckard_deploy.doctor.facts import Gpu, GpuProcess, KernelLog, Services
from deckard_deploy.doctor.host import Host
from tests.support.rule_cases import ANY, target

# An H100, seen; a GB10, whose [N/A] is from marimo-team/marimo pull request 6822 and whose other cells are from the
# table in snowflakedb/ArcticTraining pull request 345.
H100 = "0, NVIDIA H100 80GB HBM3, 9.0, 580.159.04, 81559, 0, 38, 1980, 122.43, P0, 0"
GB10 = "0, NVIDIA GB10, 12.1, 580.126.09, [N/A], [N/A], 36, 208, 3.00, P8, 0"
HEADER = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.159.04             Driver Version: 580.159.04     CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
"""
GARBAGE = [
    "",
    "\n\n",
    "No devices were found",
    "x" * 100_000,
    ",,,,,,,,,,",
    "0, a, b, c, d, e, f, g, h, i",
    "-1, NVIDIA, 9.0, 580.1, 1, 1, 1, 1, 1, P0, 1",
    "²; NVIDIA",
    "<html><body>502</body></html>",
    "[Unknown Error]",
    "0, n, 9.0, 1, 1, 1, 1, 1, 1, P0, 1, one more",
]


def gpus(host: Host) -> tuple[tuple[Gpu, ...], str | None]:
    found = programs.gpus(host, ANY)
    return found["gpus"], found["gpu_problem"]


def test_recorded_h100_line_is_parsed(host: Host, program):
    program("nvidia-smi", f"echo '{H100}'")
    gpu = Gpu(
        index=0,
        name="NVIDIA H100 80GB HBM3",
        compute_capability="9.0",
        driver="580.159.04",
        memory_total_mib=81559,
        memory_used_mib=0,
        temperature_c=38,
        sm_clock_mhz=1980,
        power_w=122.43,
        performance_state="P0",
        utilization_percent=0,
    )
    assert gpus(host) == ((gpu,), None)


def test_gb10_reports_no_memory(host: Host, program):
    program("nvidia-smi", f"echo '{GB10}'")
    (gpu,), problem = gpus(host)
    assert problem is None
    assert (gpu.name, gpu.memory_total_mib, gpu.memory_used_mib, gpu.power_w) == (
        "NVIDIA GB10",
        None,
        None,
        3.0,
    )


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_not_a_gpu(host: Host, program, text: str, tmp_path):
    (tmp_path / "text").write_text(text)
    program("nvidia-smi", f"cat {tmp_path}/text")
    found, problem = gpus(host)
    assert found == ()
    assert (problem or "").startswith("nvidia-smi lists no GPU: ")
    assert len(problem or "") < 250


def test_malformed_cells_are_unknown(host: Host, program):
    program("nvidia-smi", "echo '0, GPU, [N/A], [N/A], 1e9, -5, hot, ١٢, NaN, fast, 100 %'")
    assert gpus(host) == ((Gpu(index=0, name="GPU"),), None)


def test_missing_gpu_has_a_reason(host: Host, program):
    assert gpus(host) == ((), "nvidia-smi is not installed")
    words = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    program("nvidia-smi", f'echo "{words}"; exit 9')
    assert gpus(host) == ((), f"nvidia-smi: {words}")


def test_only_the_chosen_gpus_are_queried(host: Host, program):
    program(
        "nvidia-smi",
        'case "$*" in *--id=3*) echo "3, B, , , 9, 1, , , , , ";; *--id=9*) exit 6;; *) echo 0;; esac',
    )
    chosen = target(gpu_ids=("3", "9"), gpu_count=2)
    found = programs.gpus(host, chosen)
    assert [(gpu.index, gpu.memory_total_mib) for gpu in found["gpus"]] == [(3, 9)]
    program(
        "nvidia-smi",
        'case "$*" in *--id=3*) echo "7, python3, 3590";; *--id=9*) ;; *) echo "8, other, 1";; esac',
    )
    assert [each.pid for each in programs.gpu_processes(host, chosen)["gpu_processes"]] == [7]


# An H200 of 580.159.04, seen: the fields of a newer driver follow.
H200 = "0, NVIDIA H200, 9.0, 580.159.04, 143771, 0, 30, 345, 76.7, P0, 0, Disabled, N/A, N/A, None, Default"


def test_fields_of_a_newer_driver_are_parsed(host: Host, program):
    program("nvidia-smi", f"echo '{H200}'")
    (gpu,), problem = gpus(host)
    assert (gpu.mig, gpu.fabric, gpu.problem, gpu.compute_mode, problem) == (
        "Disabled",
        None,
        None,
        "Default",
        None,
    )


def test_older_driver_is_asked_for_fewer_fields(host: Host, program):
    refusal = 'Field "gpu_recovery_action" is not a valid field to query.'  # seen with an unknown field
    program(
        "nvidia-smi",
        f"""case "$*" in *recovery*) echo '{refusal}'; exit 2;; *) echo '{H100}';; esac""",
    )
    (gpu,), problem = gpus(host)
    assert (gpu.name, gpu.mig, problem) == ("NVIDIA H100 80GB HBM3", None, None)


@pytest.mark.parametrize(
    ("cells", "problem", "fabric"),
    [
        (
            "[GPU requires reset], 40, 1, 2, P0, 0, Disabled, N/A, N/A, None, Default",
            "GPU requires reset",
            None,
        ),
        ("1, [Unknown Error], 1, 2, P0, 0, Disabled, N/A, N/A, None, Default", "Unknown Error", None),
        ("1, 40, 1, ERR!, P0, 0, Disabled, N/A, N/A, None, Default", "ERR!", None),
        (
            "1, 40, 1, 2, P0, 0, Enabled, N/A, N/A, Node Reboot, Default",
            "the driver recommends: Node Reboot",
            None,
        ),
        ("1, 40, 1, 2, P0, 0, Disabled, In Progress, N/A, None, Default", None, "In Progress"),
        ("1, 40, 1, 2, P0, 0, Disabled, Completed, Success, None, Default", None, "Completed"),
        ("1, 40, 1, 2, P0, 0, Disabled, Completed, Not Ready, None, Default", None, "Completed: Not Ready"),
        ("[N/A], 40, [Not Supported], 2, P0, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]", None, None),
    ],
)
def test_errors_in_place_of_values_are_read(
    host: Host, program, cells: str, problem: str | None, fabric: str | None
):
    program("nvidia-smi", f"echo '0, NVIDIA B200, 10.0, 580.95.05, 183359, {cells}'")
    (gpu,), _ = gpus(host)
    assert (gpu.problem, gpu.fabric) == (problem, fabric)


def test_slices_of_mig_are_listed(host: Host, program):
    listing = "GPU 0: B (UUID: GPU-0)\\n  MIG 3g.90gb     Device  0: (UUID: MIG-0)\\nGPU 1: B (UUID: GPU-1)"
    values = "B, 10.0, 580, 1, 1, 1, 1, 1, P0, 0"
    rows = f"0, {values}, Enabled, , , , \\n1, {values}, Disabled, , , , "
    program("nvidia-smi", f"""case "$1" in -L) printf '{listing}';; *) printf '{rows}';; esac""")
    found, _ = gpus(host)
    assert [(gpu.mig, gpu.mig_devices) for gpu in found] == [("Enabled", ("3g.90gb",)), ("Disabled", ())]


def test_both_lines_of_a_failure_are_kept(host: Host, program):
    lines = "Failed to initialize NVML: Driver/library version mismatch\\nNVML library version: 580.126"
    program("nvidia-smi", f"printf '{lines}'; exit 18")
    assert gpus(host) == (
        (),
        "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch; NVML library version: 580.126",
    )


def test_gpus_next_to_a_lost_one_are_listed(host: Host, program):
    lost = "Unable to determine the device handle for GPU0000:BA:00.0: Unknown Error"
    program("nvidia-smi", f"echo '{H200}'; echo '{lost}'; exit 15")
    (gpu,), problem = gpus(host)
    assert gpu.name == "NVIDIA H200"
    assert lost in (problem or "")


def test_nvidia_smi_of_wsl_is_found_off_the_path(host: Host, root):
    path = root / "usr/lib/wsl/lib/nvidia-smi"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{H200}'\n")
    assert gpus(host) == ((), "nvidia-smi is in /usr/lib/wsl/lib (WSL), and cannot be run")
    path.chmod(0o755)
    (gpu,), problem = gpus(host)
    assert (gpu.name, problem) == ("NVIDIA H200", None)
    path.write_text(
        "#!/bin/sh\necho 'Failed to initialize NVML: GPU access blocked by the operating system'; exit 17\n"
    )
    assert (
        gpus(host)[1] == "nvidia-smi: Failed to initialize NVML: GPU access blocked by the operating system"
    )


def test_gpu_processes_are_parsed(host: Host, program):
    seen = "406, python3, 3590"  # on an H100 with driver 580.159.04
    lines = (seen, "21950, VLLM::EngineCore, 104277", "8, a, b, [N/A]", "no, line", "9")
    program("nvidia-smi", "; ".join(f"echo '{line}'" for line in lines))
    assert programs.gpu_processes(host, ANY)["gpu_processes"] == (
        GpuProcess(pid=406, name="python3", memory_mib=3590),
        GpuProcess(pid=21950, name="VLLM::EngineCore", memory_mib=104277),
        GpuProcess(pid=8, name="a, b", memory_mib=None),
    )


def test_cuda_version_is_read_from_the_header(host: Host, program, tmp_path):
    assert programs.cuda(host, ANY) == {"cuda": None}
    (tmp_path / "header").write_text(HEADER)
    program("nvidia-smi", f"cat {tmp_path}/header")
    assert programs.cuda(host, ANY) == {"cuda": "13.0"}
    program("nvidia-smi", "echo 'CUDA Version : Not Found'")
    assert programs.cuda(host, ANY) == {"cuda": None}


# leptonai/gpud pull 46.
XID = "NVRM: Xid (PCI:0000:cb:00): 13, pid=7, name=python3, Graphics SM Warp Exception"
FULL = (  # NVIDIA/open-gpu-kernel-modules issue 1358
    "NVRM: nvCheckOkFailedNoLog: Check failed: Out of memory [NV_ERR_NO_MEMORY] (0x00000051) returned from "
    "_memdescAllocInternal(pMemDesc) @ mem_desc.c:1359"
)
KILLED = "Out of memory: Killed process 3113 (VLLM::EngineCor) total-vm:1kB"  # mm/oom_kill.c


def test_kernel_log_of_two_boots_is_read(host: Host, program):
    program(
        "journalctl",
        f'case "$*" in *"-b 0"*) echo "{FULL}"; echo "{FULL}" ;; *) echo "{KILLED}"; echo "{XID}" ;; esac',
    )
    log = programs.kernel_log(host, ANY)["kernel_log"]
    assert log.problem is None
    assert [(event.kind, event.boot, event.count) for event in log.events] == [
        ("driver out of memory", "this boot", 2),
        ("process killed for memory", "the boot before", 1),
        ("GPU error (Xid)", "the boot before", 1),
    ]
    assert log.events[0].last == FULL


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("driver out of memory", FULL),
        ("process killed for memory", KILLED),
        ("GPU error (Xid)", XID),
        (
            "driver versions differ",
            "NVRM: API mismatch: the client has the version 580.126, but this kernel module has the version 580.95",
        ),
        (
            "process ended by earlyoom",
            'sending SIGTERM to process 12 uid 1000 "VLLM::EngineCor": oom_score 1033, VmRSS 101234 MiB',
        ),
        (
            "process ended by systemd-oomd",
            "Killed /user.slice/user-1000.slice/user@1000.service/app.slice due to memory pressure for /user.slice",
        ),
        (
            "open kernel modules needed",
            "NVRM: installed in this system requires use of the NVIDIA open kernel modules.",
        ),
        (
            "process ended by systemd-oomd",
            "Marked /system.slice/docker-1.scope for killing due to memory pressure for /system.slice being 90% > 50%",
        ),
        ("module refused by Secure Boot", "nvidia: loading of module with unavailable key is rejected"),
        ("module refused by Secure Boot", "Loading of module with unavailable key is rejected"),
        (None, "usb 1-1: new high-speed USB device"),
        (None, "nvidia: loading out-of-tree module taints kernel."),
        (None, "nvidia: module verification failed: signature and/or required key missing - tainting kernel"),
        (None, "earlyoom: mem avail: 100000 of 124000 MiB (80.00%), swap free: 0 of 0 MiB"),
    ],
)
def test_line_of_the_kernel_log_has_one_kind(host: Host, program, kind: str | None, line: str):
    program("journalctl", f"""case "$*" in *"-b 0"*) cat <<'END'\n{line}\nEND\n;; esac""")
    found = [event.kind for event in programs.kernel_log(host, ANY)["kernel_log"].events]
    assert found == ([kind] if kind else [])


def test_kernel_log_file_is_read_last(host: Host, program, root):
    (root / "var/log").mkdir(parents=True)
    (root / "var/log/kern.log").write_text(f"Nov 30 10:00:00 host kernel: {XID}\n")
    (event,) = programs.kernel_log(host, ANY)["kernel_log"].events
    assert event.kind == "GPU error (Xid)"
    program("dmesg", "echo '[  1.0] usb 1-1: new device'")
    assert programs.kernel_log(host, ANY)["kernel_log"].events == ()


@pytest.mark.parametrize(
    ("files", "user", "removes"),
    [
        ({}, "alice", None),
        ({"etc/systemd/logind.conf": "[Login]\n#RemoveIPC=yes\n"}, "alice", True),
        ({"etc/systemd/logind.conf": "[Login]\nRemoveIPC=no\n"}, "alice", False),
        (
            {
                "etc/systemd/logind.conf": "RemoveIPC=yes\n",
                "etc/systemd/logind.conf.d/9.conf": "[Login]\nRemoveIPC=no\n",
            },
            "alice",
            False,
        ),
        ({"etc/systemd/logind.conf": ""}, "root", False),
        ({"etc/systemd/logind.conf": "", "var/lib/systemd/linger/alice": ""}, "alice", False),
        ({"etc/systemd/logind.conf": "", "var/lib/systemd/linger/alice": ""}, "bob", True),
    ],
)
def test_remove_ipc_is_read(host: Host, root, files: dict[str, str], user: str, *, removes: bool | None):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    host = replace(host, environment={**host.environment, "USER": user})
    assert programs.services(host, ANY)["services"].remove_ipc is removes


def test_dmesg_is_read_without_a_journal(host: Host, program):
    assert programs.kernel_log(host, ANY)["kernel_log"] == KernelLog(problem="dmesg is not installed")
    program("journalctl", "echo No journal files were found. >&2; exit 1")
    program("dmesg", f'echo "[  1.0] {XID}"; echo "[  1.1] usb 1-1: new device"')
    (event,) = programs.kernel_log(host, ANY)["kernel_log"].events
    assert (event.kind, event.count) == ("GPU error (Xid)", 1)
    program("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    problem = programs.kernel_log(host, ANY)["kernel_log"].problem
    assert problem == "dmesg: dmesg: read kernel buffer failed: Operation not permitted"


def test_services_are_read_from_systemd(host: Host, program, root):
    assert programs.services(host, ANY)["services"] == Services()
    program("systemctl", 'case "$2" in earlyoom) echo active ;; *) echo inactive; exit 3 ;; esac')
    program("timedatectl", "echo no")
    (root / "etc/ufw").mkdir(parents=True)
    (root / "etc/ufw/ufw.conf").write_text("# comment\nENABLED=yes\nLOGLEVEL=low\n")
    assert programs.services(host, ANY)["services"] == Services(
        early_oom=True, desktop=False, clock_synchronized=False, firewall=True
    )


def test_services_are_unknown_without_systemd(host: Host, program):
    words = "System has not been booted with systemd as init system (PID 1). Can't operate."
    program("systemctl", f'echo "{words}" >&2; exit 1')
    program("timedatectl", f'echo "{words}" >&2; exit 1')
    assert programs.services(host, ANY)["services"] == Services()
