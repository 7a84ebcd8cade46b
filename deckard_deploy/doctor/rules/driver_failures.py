"""The failures of nvidia-smi: what each message means, and what mends it.

nvidia-smi ends with the code of NVML (docs.nvidia.com/deploy/nvml-api, nvmlReturn_t), and prints one or two lines.
"""

import re
from typing import NamedTuple

from deckard_deploy.doctor.facts import HostFacts

RELOAD = (
    "reboot; or, with nothing on the GPU: sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && "
    "sudo modprobe nvidia (a desktop on the GPU must be stopped first)"
)
LOST = "switch the machine off and on, then: sudo dmesg | grep -E 'Xid|NVRM' (power, heat, seat of the card)"
NO_GPU = "without a GPU: deckard-deploy up --profile cpu"


class DriverFailure(NamedTuple):
    """What a message means, and what mends it."""

    cause: str
    fix: str


# The first match counts: a lost GPU is reported by "Unknown Error" too (open-gpu-kernel-modules issue 1342).
_BY_MESSAGE = (
    (
        "version mismatch",  # tinygrad/open-gpu-kernel-modules issue 47
        DriverFailure("the driver was updated, and the old kernel module still runs", RELOAD),
    ),
    (
        "in /usr/lib/wsl/lib",
        DriverFailure(
            "WSL keeps it there, and the driver is the one of Windows",
            "/usr/lib/wsl/lib/nvidia-smi; if it fails: update the NVIDIA driver on Windows (install none in WSL), "
            "then in Windows: wsl --shutdown (which ends everything in WSL)",
        ),
    ),
    (
        "blocked by the operating system",  # NVML_ERROR_OPERATING_SYSTEM
        DriverFailure(
            "Windows (under WSL) or a control group keeps this system from the GPU",
            "under WSL: update the NVIDIA driver on Windows, then there: wsl --shutdown; else: ls -l /dev/nvidia*",
        ),
    ),
    (
        r"requires? (a )?reset|reset required",  # NVML_ERROR_RESET_REQUIRED
        DriverFailure(
            "the GPU takes no work until it is reset",
            "sudo nvidia-smi --gpu-reset -i 0 (ends what runs on it), or reboot",
        ),
    ),
    (
        r"gpu is lost|fallen off the bus|device handle|reboot the system",
        DriverFailure("a GPU is no longer on its bus", LOST),
    ),
    (
        "driver not loaded|communicate with the nvidia driver",
        DriverFailure(
            "its kernel module is not loaded: a new kernel without it, or Secure Boot refuses it",
            "sudo modprobe nvidia, which names the reason; dkms status; mokutil --sb-state",
        ),
    ),
    (
        "no devices were found",
        DriverFailure(
            "the driver is loaded, and no GPU answers it",
            "sudo dmesg | grep NVRM: from Blackwell on a GPU needs the open kernel modules (nvidia-open); else a GPU "
            "that is lost: switch the machine off and on",
        ),
    ),
    (
        "insufficient permissions|no permission",
        DriverFailure(
            "this user may not open /dev/nvidia*",
            "ls -l /dev/nvidia*; sudo usermod -aG video,render $USER, then log in again",
        ),
    ),
    (
        "libnvidia-ml",
        DriverFailure(
            "a library of the driver is missing",
            "install the libraries of the version in /proc/driver/nvidia/version, then: sudo ldconfig",
        ),
    ),
    (
        "unknown error",  # docs.nvidia.com, container toolkit, troubleshooting: containers losing access to GPUs
        DriverFailure(
            "the devices were taken away, as `systemctl daemon-reload` does to a container, or the driver has failed",
            "in a container: restart it; on the host: ls -l /dev/nvidia*; sudo dmesg | grep NVRM; reboot",
        ),
    ),
    (
        "did not answer within",
        DriverFailure("the driver hangs", "sudo dmesg | grep -E 'NVRM|Xid'; reboot"),
    ),
)


def driver_failure(facts: HostFacts) -> DriverFailure:
    """Return the meaning of `gpu_problem`."""
    problem = (facts.gpu_problem or "").lower()
    if "is not installed" in problem:
        return _not_installed(facts)
    if facts.nouveau and re.search("communicate with|not loaded|no devices", problem):
        return DriverFailure(
            "nouveau has the GPU, and keeps NVIDIA's driver from it",
            "echo blacklist nouveau | sudo tee /etc/modprobe.d/nouveau.conf && sudo update-initramfs -u, then reboot",
        )
    for pattern, failure in _BY_MESSAGE:
        if re.search(pattern, problem):
            return failure
    return DriverFailure("", f"nvidia-smi; sudo dmesg | grep NVRM; {NO_GPU}")


def _not_installed(facts: HostFacts) -> DriverFailure:
    if facts.wsl:
        return DriverFailure(
            "under WSL the driver is the one of Windows",
            f"install the NVIDIA driver on Windows, none in WSL; {NO_GPU}",
        )
    if facts.nvidia_devices == 0:
        return DriverFailure("this machine has no NVIDIA GPU", NO_GPU)
    if facts.nvidia_devices:
        return DriverFailure(
            f"{facts.nvidia_devices} NVIDIA GPU on the PCI bus, and no driver",
            f"install the NVIDIA driver (580 or later), then reboot; {NO_GPU}",
        )
    return DriverFailure("", f"install or load the NVIDIA driver (nvidia-smi); {NO_GPU}")
