"""The plugin for engines with extension points: one wheel, built reproducibly.

The wheel is mounted as a single read-only file and put on PYTHONPATH. Python imports from it, and
importlib.metadata finds the entry point in it, so nothing is installed and no folder of the image is changed.
"""

import hashlib
import io
import re
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

from deckard_deploy.catalog.specs import lm_head_form
from deckard_deploy.errors import IntegrityError
from deckard_deploy.resources import plugins_dir
from deckard_deploy.system.files import write_atomically

NAME = "nvfp4-awq"  # the folder in plugins/, and the name in an engine of the catalog
ENTRY_POINT = "deckard_nvfp4_awq"  # the name that VLLM_PLUGINS must contain, if it is set
WHEEL = f"{ENTRY_POINT}-1-py3-none-any.whl"  # importlib.metadata reads the name and the version
# The folder of the plugin that quantizes lm_head too. The format is the entry point in the wheel, so that the hash
# attests it.
_LM_HEAD_FOLDER = "lm-head"

_FORMATS = ("nvfp4_awq", "nvfp4_svd")  # as a model's `quantization` names them
# vLLM 0.32.0 has no kernel of NVFP4 for a CPU (kernels/linear/__init__.py:574); the plugin registers vLLM's emulation.
_FORMATS_ON_A_CPU = (*_FORMATS, "nvfp4", "compressed-tensors")

_METADATA = {
    "METADATA": (
        f"Metadata-Version: 2.1\nName: {ENTRY_POINT}\nVersion: 1\nRequires-Dist: vllm (>=0.32,<0.34)\n"
    ),
    "WHEEL": "Wheel-Version: 1.0\nGenerator: deckard-deploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
_REGISTERED = re.compile(r"deckard_nvfp4_awq registered: sha256=([0-9a-f]{64}) pid=(\d+)")
_QUANTIZED = re.compile(r"deckard_lm_head quantized: form=(\w+) kernel=(\w+) off=([0-9.]+) pid=(\d+)")
_HINT = "deckard-deploy down, then: deckard-deploy up; `deckard-deploy logs` shows what PYTHONPATH lost"
_STARTUP_LINE = "non-default args"  # api_utils.py, the second line of the API server
_PROCESS = re.compile(r"^\((APIServer|EngineCore|Worker)\w* pid=(\d+)\)")  # the prefix of vLLM's lines


def is_needed_for(quantization: str, *, gpu: bool) -> bool:
    """Return True if a checkpoint of this quantization needs the plugin, on an engine for GPUs or for a CPU."""
    return quantization in (_FORMATS if gpu else _FORMATS_ON_A_CPU)


def wheel_bytes(name: str) -> bytes:
    """Return the wheel of plugin `name`, made from plugins/nvfp4-awq and, with lm_head, plugins/lm-head.

    It is reproducible: sorted, not compressed, dated 1980, without a trace of the build environment.
    """
    info = f"{WHEEL.partition('-py3')[0]}.dist-info"
    form = lm_head_form(name)
    folders, function = [NAME], f"{ENTRY_POINT}:register"
    if form:
        folders, function = [NAME, _LM_HEAD_FOLDER], f"deckard_lm_head:{form}"
    files: dict[str, bytes] = {}
    for folder in folders:
        files |= {file.name: file.read_bytes() for file in sorted((plugins_dir() / folder).glob("*.py"))}
    metadata = _METADATA | {"entry_points.txt": f"[vllm.general_plugins]\n{ENTRY_POINT} = {function}\n"}
    files |= {f"{info}/{file}": text.encode() for file, text in metadata.items()}
    record = ""
    for file, data in files.items():
        record += f"{file},sha256={_record_digest(data)},{len(data)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as wheel:
        for file, data in files.items():
            entry = zipfile.ZipInfo(file)  # dated 1980-01-01
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            wheel.writestr(entry, data)
    return stream.getvalue()


def wheel_sha256(name: str) -> str:
    """Return the hash of the wheel, which is part of the plan and logged by every process of the engine."""
    return hashlib.sha256(wheel_bytes(name)).hexdigest()


def build(name: str, file: Path) -> Path:
    """Write the wheel to `file`.

    An existing file with these bytes keeps its inode, because a running engine may use it.
    """
    content = wheel_bytes(name)
    if not file.is_file() or file.read_bytes() != content:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content, mode=0o644)
    return file


def verify_plugin_log(lines: list[str], name: str, sha256: str) -> str:
    """Verify by the log that every process of the engine runs this wheel, and return a line for the user.

    Raises IntegrityError that names a process that logged nothing or another hash, or one that loaded the model
    without quantizing its lm_head although plugin `name` does.
    """
    if not any(_STARTUP_LINE in line for line in lines):
        return "not asked: the log does not reach back to the start"
    # Both by process number: the API server logs the hash before vLLM adds the prefix to its lines.
    hashes: dict[str, str] = {}
    processes: dict[str, str] = {}
    for line in lines:
        registered = _REGISTERED.search(line)
        if registered:
            hashes[registered[2]] = registered[1]
        prefix = _PROCESS.match(line)
        if prefix:
            processes[prefix[2]] = prefix[1]
    for process in ("APIServer", "EngineCore"):
        if process not in processes.values():
            raise IntegrityError(
                f"the log knows no {process}, which has to run plugin {ENTRY_POINT}", hint=_HINT
            )
    for pid, process in sorted(processes.items()):
        if hashes.get(pid) != sha256:
            found = hashes.get(pid, "nothing")[:12]
            raise IntegrityError(
                f"{process} {pid} does not run plugin {ENTRY_POINT} {sha256[:12]}: it said {found}",
                hint=_HINT,
            )
    names = ", ".join(sorted(set(processes.values())))
    return f"in use by {names}, hashes right{_lm_head_in_log(lines, lm_head_form(name), processes)}"


def _lm_head_in_log(lines: list[str], form: str | None, processes: dict[str, str]) -> str:
    """Return how lm_head was quantized, for the user; "" if it is not to be. processes: names by pid.

    Workers load the model; without any the EngineCore does.
    """
    if form is None:
        return ""
    loaders = {pid for pid, process in processes.items() if process == "Worker"}
    loaders = loaders or {pid for pid, process in processes.items() if process == "EngineCore"}
    found = {match[4]: match for match in map(_QUANTIZED.search, lines) if match and match[1] == form}
    for pid in sorted(loaders - found.keys()):
        raise IntegrityError(f"{processes[pid]} {pid} did not quantize lm_head to {form}", hint=_HINT)
    said = found[min(loaders)]
    return f"; lm_head {form} by {said[2]}, its logits off by {float(said[3]):.1%}"


def _record_digest(data: bytes) -> str:
    """Return the sha256 as RECORD has it."""
    return urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
