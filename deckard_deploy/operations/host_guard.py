"""What `watch` sees of the machine while the engine serves: memory that runs out, and a GPU that is wedged."""

import os
from collections.abc import Callable

from deckard_deploy.catalog import library
from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.system.commands import run
from deckard_deploy.system.meminfo import total_and_available

MIB, GIB = 1 << 20, 1 << 30
# Below it earlyoom ends a process on the Sparks of github eugr/spark-vllm-docker (README: `-M 524288,102400`, in KiB).
# A driver that gets no memory takes the machine with it (NVIDIA/open-gpu-kernel-modules issue 1358).
FLOOR = 512 * MIB
WARN = 2 * GIB  # a choice: four times the floor
SAMPLES = 2  # in a row, a second apart
WEDGED_PERCENT = (
    90.0  # of a GPU that waits in a kernel: it reports 95 % (github eugr/spark-vllm-docker issue 260)
)
_NVIDIA_SMI_S = 10.0
_QUERY = ("nvidia-smi", "--query-gpu=name,power.draw,utilization.gpu", "--format=csv,noheader,nounits")


def is_unified(plan: LaunchPlan) -> bool:
    """Return True if GPU and host share the memory of the plan's machine; False for a profile of the user's own."""
    try:
        return library.profile(plan.profile).hardware.memory == "unified"
    except BadInputError:
        return False


class MemoryGuard:
    """The available memory of the machine. To be asked about once a second."""

    def __init__(
        self, report: Reporter, available: Callable[[], int] = lambda: total_and_available()[1]
    ) -> None:
        self._report = report
        self._available = available
        self._below = 0
        self._warned = False

    def shortage(self) -> str | None:
        """Return why the engine has to be stopped now; None while there is enough memory. Warn before that."""
        available = self._available()
        if available < WARN and not self._warned:
            self._report.say(
                f"memory   {available / GIB:.1f} GiB available: below {FLOOR // MIB} MiB the engine is stopped"
            )
        self._warned = available < WARN
        self._below = self._below + 1 if available < FLOOR else 0
        if self._below < SAMPLES:
            return None
        return (
            f"{available // MIB} MiB of memory are available, and below {FLOOR // MIB} MiB a machine with unified "
            "memory freezes"
        )


def wedged_gpu(report: Reporter) -> str:
    """Return a sentence about a GPU that says it is busy and takes no power; "" if there is none."""
    try:
        done = run(_QUERY, environment=dict(os.environ), say=report.command, timeout_s=_NVIDIA_SMI_S)
    except EnvironmentUnfitError:
        return ""  # no nvidia-smi, or it hangs, which the canary notices too
    for line in done.stdout.splitlines():
        name, _, figures = line.partition(", ")
        power, _, utilization = figures.partition(", ")
        if _is_wedged(name, power, utilization):
            return (
                f"; {name} reports {utilization.strip()} % at {power.strip()} W: it is wedged, "
                "and the machine may have to be switched off"
            )
    return ""


def _is_wedged(name: str, power: str, utilization: str) -> bool:
    limit = library.wedged_below_w(name)
    if limit is None:
        return False
    try:
        return float(power) < limit and float(utilization) >= WEDGED_PERCENT
    except ValueError:  # [N/A]
        return False
