"""The plugin for engines that have extension points: one wheel, the same bytes wherever it is built.

It is mounted as a single read-only file and put on PYTHONPATH: Python imports from the wheel, and importlib.metadata
finds its entry point in it, so nothing is installed and no folder of the image is touched.
"""

import hashlib
import io
import re
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

from deckard_deploy.errors import IntegrityError
from deckard_deploy.resources import plugins_dir
from deckard_deploy.system.files import write_atomically

NAME = "nvfp4-awq"  # its folder in plugins/, and what an engine calls it
ENTRY_POINT = "deckard_nvfp4_awq"  # the name that VLLM_PLUGINS must hold, if that is set
WHEEL = f"{ENTRY_POINT}-1-py3-none-any.whl"  # importlib.metadata reads name and version from this

_FORMATS = ("nvfp4_awq", "nvfp4_svd")  # as a model's `quantization` names them

_METADATA = {
    "METADATA": f"Metadata-Version: 2.1\nName: {ENTRY_POINT}\nVersion: 1\nRequires-Dist: vllm (>=0.32,<0.33)\n",
    "WHEEL": "Wheel-Version: 1.0\nGenerator: deckard-deploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "entry_points.txt": f"[vllm.general_plugins]\n{ENTRY_POINT} = {ENTRY_POINT}:register\n",
}
_WORD = re.compile(r"deckard_nvfp4_awq registered: sha256=([0-9a-f]{64}) pid=(\d+)")
_HINT = "deckard-deploy down, then up; `deckard-deploy logs` shows what PYTHONPATH lost"
_BEGINNING = "non-default args"  # api_utils.py, the API server's second line
_PROCESS = re.compile(r"^\((APIServer|EngineCore|Worker)\w* pid=(\d+)\)")  # vLLM's prefix of a line


def serves(quantization: str) -> bool:
    """Whether a checkpoint of this quantization needs the plugin."""
    return quantization in _FORMATS


def wheel_bytes(name: str) -> bytes:
    """The wheel of plugin `name`, from plugins/NAME: sorted, stored, dated 1980, with no trace of who built it."""
    info = f"{WHEEL.partition('-py3')[0]}.dist-info"
    files = {file.name: file.read_bytes() for file in sorted((plugins_dir() / name).glob("*.py"))}
    files |= {f"{info}/{file}": text.encode() for file, text in _METADATA.items()}
    record = "".join(f"{file},sha256={_digest(data)},{len(data)}\n" for file, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as wheel:
        for file, data in files.items():
            entry = zipfile.ZipInfo(file)  # dated 1980-01-01
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            wheel.writestr(entry, data)
    return stream.getvalue()


def sha256_of(name: str) -> str:
    """The hash of that wheel: part of the plan, and said by every process of the engine."""
    return hashlib.sha256(wheel_bytes(name)).hexdigest()


def build(name: str, file: Path) -> Path:
    """Write the wheel to `file`; one that is there with these bytes keeps its inode, because an engine may run it."""
    content = wheel_bytes(name)
    if not file.is_file() or file.read_bytes() != content:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content, mode=0o644)
    return file


def judge_log(lines: list[str], sha256: str) -> str:
    """Check that every process of the engine said that it runs this wheel; returns a line that says so.

    Raises IntegrityError that names the process that said nothing, or another hash.
    """
    if not any(_BEGINNING in line for line in lines):
        return "not asked: the log does not reach back to the start"
    # By number, not by name: the API server speaks before vLLM prefixes its lines.
    said = {match[2]: match[1] for line in lines if (match := _WORD.search(line))}
    seen = {match[2]: match[1] for line in lines if (match := _PROCESS.match(line))}
    for process in ("APIServer", "EngineCore"):
        if process not in seen.values():
            raise IntegrityError(
                f"the log knows no {process}, which has to run plugin {ENTRY_POINT}", hint=_HINT
            )
    for pid, process in sorted(seen.items()):
        if said.get(pid) != sha256:
            found = said.get(pid, "nothing")[:12]
            raise IntegrityError(
                f"{process} {pid} does not run plugin {ENTRY_POINT} {sha256[:12]}: it said {found}",
                hint=_HINT,
            )
    return f"in use by {', '.join(sorted(set(seen.values())))}, hashes right"


def _digest(data: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
