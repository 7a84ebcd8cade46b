"""A machine from a description: fake programs on PATH and files below a root, for the probes of doctor.

The description is JSON:

    uname           the machine's architecture; x86_64 without it
    nvidia_smi      a list of GPUs, each a mapping of query fields, `name` and `index` among them, with `-L` as the
                    lines below its own line of `nvidia-smi -L`; or the text that nvidia-smi fails with
    nvidia_smi_rc   the exit status of a nvidia-smi that fails; 18 without it
    docker          the answer of `docker info --format '{{json .}}'`
    docker_stderr   the text on standard error of a `docker info` that fails
    compose         the version of docker compose; 2.40.3 without it
    files           the content of files by their path
    env             environment variables
    profile         the profile to judge the machine for; none: no profile was named

A program that the description does not have is not installed.
"""

import sys
from pathlib import Path
from typing import Any

from deckard_deploy.doctor.host import Host

NVIDIA_SMI = """
import sys

options = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
chosen = options.get("--id", "").split(",")
gpus = [gpu for gpu in DATA if "--id" not in options or gpu["index"] in chosen]
if "--query-gpu" in options:
    for gpu in gpus:
        # A driver reports [N/A] for a field that it does not support.
        print(", ".join(gpu.get(field.strip(), "[N/A]") for field in options["--query-gpu"].split(",")))
elif "-L" in options:
    for gpu in gpus:
        print(f"GPU {gpu['index']}: {gpu['name']} (UUID: GPU-0000000{gpu['index']})")
        for line in gpu.get("-L", ()):
            print(line)
elif "--query-compute-apps" not in options:
    print("| NVIDIA-SMI 580.95.05   Driver Version: 580.95.05     CUDA Version: 13.0     |")
"""
FAILING_NVIDIA_SMI = """
import sys

print(DATA["text"])
sys.exit(DATA["code"])
"""
DOCKER = """
import json
import sys

arguments = sys.argv[1:]
if arguments[:2] == ["info", "--format"]:
    if arguments[2] == "{{.DockerRootDir}}":
        print(DATA["info"].get("DockerRootDir", "/var/lib/docker"))
    else:
        print(json.dumps(DATA["info"]))
    if DATA["stderr"]:
        print(DATA["stderr"], file=sys.stderr)
        sys.exit(1)
elif arguments == ["compose", "version", "--short"]:
    print(DATA["compose"])
else:
    sys.exit(1)
"""
UNAME = "print(DATA)"


def recorded_host(description: dict[str, Any], folder: Path) -> Host:
    """Write the machine's programs and files below a folder. Return the host that has only them."""
    programs, root = folder / "bin", folder / "root"
    programs.mkdir(parents=True)
    root.mkdir()
    for name, (source, data) in _programs(description).items():
        _write_program(programs / name, source, data)
    for name, text in description.get("files", {}).items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    environment = {"PATH": str(programs), "HOME": str(folder), **description.get("env", {})}
    return Host(environment=environment, root=root, timeout_s=60)


def _programs(description: dict[str, Any]) -> dict[str, tuple[str, object]]:
    """Return the source and the data of every program."""
    programs: dict[str, tuple[str, object]] = {"uname": (UNAME, description.get("uname", "x86_64"))}
    gpus = description.get("nvidia_smi")
    if isinstance(gpus, str):
        failure = {"text": gpus, "code": description.get("nvidia_smi_rc", 18)}
        programs["nvidia-smi"] = (FAILING_NVIDIA_SMI, failure)
    elif gpus is not None:
        programs["nvidia-smi"] = (NVIDIA_SMI, gpus)
    if description.get("docker") is not None:
        answers = {
            "info": description["docker"],
            "stderr": description.get("docker_stderr", ""),
            "compose": description.get("compose", "2.40.3"),
        }
        programs["docker"] = (DOCKER, answers)
    return programs


def _write_program(path: Path, source: str, data: object) -> None:
    path.write_text(f"#!{sys.executable} -ISs\nDATA = {data!r}\n{source}", encoding="utf-8")
    path.chmod(0o755)
