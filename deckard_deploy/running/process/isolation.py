"""A network of the engine's own: a namespace with a loopback interface and nothing else (network_namespaces(7)).

The store by which torch's processes find each other (TCPStore) listens on all addresses of the machine,
without a password (docs.vllm.ai, "Security", inter-node communication; vLLM 0.19.1 uniproc_executor.py:57). In
a namespace nothing outside reaches it. The engine then listens for clients on a socket in a private folder,
which is a file and does not belong to a network.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # include/uapi/linux/sched.h
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # include/uapi/linux/sockios.h, if.h
_LIBC = ctypes.CDLL(None, use_errno=True)
# vLLM, gloo and NCCL look for an interface with an address of their own.
VARIABLES = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
_NVIDIA, _UVM = Path("/dev/nvidiactl"), Path("/dev/nvidia-uvm")


def enter_own_network() -> None:
    """Move this process, which has one thread, into a network of its own. Raises OSError if it may not."""
    if _LIBC.unshare(_CLONE_NEWNET):  # without the right to it: as root of a user namespace
        uid, gid = os.geteuid(), os.getegid()
        if _LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        # user_namespaces(7): a gid may be mapped only once setgroups is denied.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as lo:
        fcntl.ioctl(lo, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


def obstacle() -> str | None:
    """Return the reason why an engine cannot have a network of its own here; None if it can."""
    # CUDA creates the device by a program that needs the real root (nvidia-modprobe).
    if os.geteuid() and _NVIDIA.exists() and not _UVM.exists():
        return f"{_UVM} does not exist yet; sudo nvidia-modprobe -u -c 0 creates it"
    try:
        subprocess.run(("/bin/true",), check=True, stdin=subprocess.DEVNULL, preexec_fn=enter_own_network)
    except (OSError, subprocess.SubprocessError):
        return "this kernel or container allows no network namespace"
    return None
