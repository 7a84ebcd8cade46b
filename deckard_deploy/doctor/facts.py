"""The facts of a host: one frozen value that can be saved, sent elsewhere and judged there.

The facts name neither the host nor its user, and contain no secret's value. None means "could not be read".
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from deckard_deploy.errors import BadInputError

MAX_BYTES = 1 << 20  # a saved set is a few kilobytes


class Fact(BaseModel):
    """Base of the parts."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Gpu(Fact):
    """A line of `nvidia-smi --query-gpu`. Memory is None for [N/A], as on unified memory.

    problem: what the driver prints in place of values, such as "GPU requires reset", or what it recommends to do.
    mig: the mode, "Enabled" or "Disabled"; mig_devices: the slices. fabric: the state of the registration with the
    NVLink fabric. None: not reported.
    """

    index: int
    name: str
    compute_capability: str | None = None
    driver: str | None = None
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    power_w: float | None = None
    performance_state: str | None = None
    utilization_percent: int | None = None
    problem: str | None = None
    mig: str | None = None
    mig_devices: tuple[str, ...] = ()
    fabric: str | None = None
    compute_mode: str | None = None


class GpuProcess(Fact):
    """A line of `nvidia-smi --query-compute-apps`."""

    pid: int
    name: str
    memory_mib: int | None = None


class HostMemory(Fact):
    """/proc/meminfo and vm.min_free_kbytes in KiB, `full avg10` of /proc/pressure/memory in percent.

    cma: the kernel's contiguous memory.
    """

    total_kib: int
    free_kib: int
    available_kib: int
    swap_total_kib: int = 0
    swap_free_kib: int = 0
    min_free_kib: int | None = None
    pressure_full_avg10: float | None = None
    cma_total_kib: int | None = None
    cma_free_kib: int | None = None


class Docker(Fact):
    """The engine that the docker command talks to. problem: docker's own error, if it cannot be used.

    product: named if it is not docker's own engine on this system. endpoint: the scheme of its address, None for
    docker's default socket; named_by: the setting that names it. kernel: the one that the engine runs on. security:
    names of its security options, `rootless` among them. cdi: it reads CDI specifications; cdi_devices: NVIDIA's, as
    far as the engine lists them.
    """

    installed: bool
    problem: str | None = None
    version: str | None = None
    architecture: str | None = None
    runtimes: tuple[str, ...] = ()
    compose: str | None = None
    product: Literal["podman", "docker from snap", "Docker Desktop"] | None = None
    endpoint: str | None = None
    named_by: str | None = None
    kernel: str | None = None
    security: tuple[str, ...] = ()
    cdi: bool = False
    cdi_devices: tuple[str, ...] = ()
    live_restore: bool | None = None

    @property
    def rootless(self) -> bool:
        """The engine runs as this user, who is root in its containers."""
        return "rootless" in self.security


class Image(Fact):
    """An image on this host. cuda: its CUDA_VERSION."""

    reference: str
    architecture: str | None = None
    cuda: str | None = None


class Disk(Fact):
    """The file system of a folder. Disks with the same `device` are one file system."""

    purpose: Literal["weights", "caches", "images"]
    path: str
    device: int
    size_bytes: int
    free_bytes: int


class Port(Fact):
    """A trial bind. problem: names the process that has the port."""

    address: str
    port: int
    problem: str | None = None


class KernelEvent(Fact):
    """Lines of one kind in the kernel log of one boot."""

    kind: Literal[
        "driver out of memory",
        "process killed for memory",
        "GPU error (Xid)",
        "driver versions differ",
        "process ended by earlyoom",
        "process ended by systemd-oomd",
        "open kernel modules needed",
        "module refused by Secure Boot",
    ]
    boot: Literal["this boot", "the boot before"]
    count: int
    last: str


class KernelLog(Fact):
    """The events in the kernel log. problem: the reason why it could not be read."""

    problem: str | None = None
    events: tuple[KernelEvent, ...] = ()


class Folder(Fact):
    """A cache folder. size_bytes: None when it has too many files to add up."""

    path: str
    writable: bool
    owner_uid: int
    size_bytes: int | None = None


class Checkpoint(Fact):
    """A model's weights on this host. pointers: files that are LFS pointers. outside: links that lead out."""

    model: str
    folder: str
    size_bytes: int
    quant_algo: str | None = None
    missing: tuple[str, ...] = ()
    pointers: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


class TokenFile(Fact):
    """The path and mode of the hub's token file, without its content."""

    path: str
    mode: int


class Services(Fact):
    """The state of services. None: unknown, because systemd did not answer.

    remove_ipc: logind deletes the shared memory of a user at the end of the last session.
    """

    early_oom: bool | None = None
    desktop: bool | None = None
    clock_synchronized: bool | None = None
    firewall: bool | None = None
    remove_ipc: bool | None = None


class HostFacts(Fact):
    """All facts of one host.

    nvidia_devices: NVIDIA's GPUs on the PCI bus. driver_module: the version of the kernel module that runs.
    no_proxy_upper: NO_PROXY if no_proxy has another value. libraries: those of the engine's that are installed.
    """

    format: Literal[1] = 1
    origin: str = "collected"
    architecture: str | None = None
    kernel: str | None = None
    product: str | None = None
    bios: str | None = None
    uptime_s: int | None = None
    cuda: str | None = None
    gpu_problem: str | None = None
    nvidia_devices: int | None = None
    driver_module: str | None = None
    nouveau: bool = False
    gpus: tuple[Gpu, ...] = ()
    gpu_processes: tuple[GpuProcess, ...] = ()
    memory: HostMemory | None = None
    docker: Docker | None = None
    cdi_specs: tuple[str, ...] = ()
    image: Image | None = None
    disks: tuple[Disk, ...] = ()
    port: Port | None = None
    kernel_log: KernelLog | None = None
    cache_folders: tuple[Folder, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    token_file: TokenFile | None = None
    proxies: tuple[str, ...] = ()
    no_proxy: str = ""
    no_proxy_upper: str | None = None
    services: Services = Services()
    libraries: tuple[str, ...] | None = None
    nginx: bool | None = None

    @property
    def wsl(self) -> bool:
        """The machine is the Windows Subsystem for Linux: Microsoft's kernel says so."""
        return "microsoft" in (self.kernel or "").lower()


def save(facts: HostFacts, path: Path) -> None:
    """Write the facts as JSON. Raises BadInputError when the file cannot be written."""
    try:
        path.write_text(facts.model_dump_json(indent=1, exclude_defaults=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror or error}", hint="--save FILE in a folder you may write"
        ) from error


def load(path: Path) -> HostFacts:
    """Read saved facts. Raises BadInputError with the first fault of the file."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror or error}", hint="deckard-deploy doctor --save FILE"
        ) from error
    if len(content) > MAX_BYTES:
        raise BadInputError(f"{path}: more than {MAX_BYTES} bytes: not a set of facts")
    try:
        facts = HostFacts.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInputError(
            f"{path}: {where}: {first['msg']}: not what `doctor --save` writes",
            hint="deckard-deploy doctor --save FILE",
        ) from error
    if not (facts.gpus or facts.gpu_problem):  # rules would pass over the unknown GPU
        raise BadInputError(
            f"{path}: no word of a GPU: not what `doctor --save` writes",
            hint="deckard-deploy doctor --save FILE",
        )
    return facts
