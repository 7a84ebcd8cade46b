"""The meaning of each failure of nvidia-smi; the messages are NVML's own."""

import pytest

from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.rules.driver_failures import driver_failure

NOT_LOADED = (
    "nvidia-smi: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the "
    "latest NVIDIA driver is installed and running."
)
CASES = [
    (
        "Failed to initialize NVML: Driver/library version mismatch; NVML library version: 580.126",
        "old kernel module",
    ),
    ("Failed to initialize NVML: Driver Not Loaded", "kernel module is not loaded"),
    (NOT_LOADED, "kernel module is not loaded"),
    ("nvidia-smi lists no GPU: No devices were found", "no GPU answers"),
    ("Failed to initialize NVML: Insufficient Permissions", "may not open /dev/nvidia*"),
    ("Failed to initialize NVML: GPU access blocked by the operating system", "Windows"),
    ("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", "library of the driver is missing"),
    ("Failed to initialize NVML: Unknown Error", "daemon-reload"),
    ("Unable to determine the device handle for GPU0000:BA:00.0: Unknown Error", "no longer on its bus"),
    ("Unable to determine the device handle for GPU 0000:03:00.0: GPU is lost.  Reboot the system to", "bus"),
    ("nvidia-smi did not answer within 5 s", "hangs"),
    ("nvidia-smi is in /usr/lib/wsl/lib (WSL), and cannot be run", "WSL"),
    ("Unable to query: GPU requires reset", "until it is reset"),
    ("something that nobody has seen", ""),
]


@pytest.mark.parametrize(("message", "cause"), CASES)
def test_message_has_its_own_cause(message: str, cause: str):
    failure = driver_failure(HostFacts(gpu_problem=message))
    assert cause in failure.cause
    assert bool(cause) is bool(failure.cause)
    assert failure.fix
    assert "install or load" not in failure.fix


@pytest.mark.parametrize(
    ("facts", "fix"),
    [
        (HostFacts(kernel="6.6.87.2-microsoft-standard-WSL2"), "on Windows, none in WSL"),
        (HostFacts(nvidia_devices=0), "without a GPU: deckard-deploy up --profile cpu"),
        (HostFacts(nvidia_devices=2), "install the NVIDIA driver (580 or later)"),
        (HostFacts(), "install or load the NVIDIA driver"),
    ],
)
def test_missing_driver_is_advised_by_machine(facts: HostFacts, fix: str):
    failure = driver_failure(facts.model_copy(update={"gpu_problem": "nvidia-smi is not installed"}))
    assert fix in failure.fix


def test_nouveau_is_named_only_where_it_can_be_the_cause():
    assert "nouveau has the GPU" in driver_failure(HostFacts(gpu_problem=NOT_LOADED, nouveau=True)).cause
    mismatch = driver_failure(HostFacts(gpu_problem="NVML: Driver/library version mismatch", nouveau=True))
    assert "nouveau" not in mismatch.cause
