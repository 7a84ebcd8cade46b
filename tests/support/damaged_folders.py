"""Damaged and foreign model folders, by seed: each is planned by the program, and the result is judged.

A damage changes a value of a JSON file to a hostile one, bytes of a file, or the files of the folder.
"""

import contextlib
import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.cli.main import run

JSON_FILES = ("config.json", "hf_quant_config.json", "tokenizer_config.json", "generation_config.json")
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, 1e308, "", "x", "\x1b[31mred", "\udcff", "a\nb", "é" * 300,
    [], [0], ["x"] * 1000, [[]], {}, {"": 0}, {"auto_map": {"AutoModel": "m.M"}}, "../../etc/passwd", "/dev/zero",
)  # fmt: skip
FOREIGN: tuple[dict[str, Any], ...] = (
    {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "max_position_embeddings": 4096},
    {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {"sliding_window": 1024}},
    {"architectures": ["BertModel"], "max_position_embeddings": 512},
    {"architectures": ["WhisperForConditionalGeneration"]},
    {"_class_name": "StableDiffusionPipeline"},
    {"architectures": ["Gemma4ForConditionalGeneration"]},
    {"architectures": [], "text_config": None},
    {},
)
Damage = Callable[[Path, random.Random], str]


@dataclass(frozen=True)
class Result:
    """What the program made of a damaged folder. fault: "" if it is as it must be."""

    seed: int
    damage: str
    code: int
    said: str
    fault: str


def _leaves(value: Any) -> Iterator[tuple[MutableMapping[Any, Any] | list[Any], Any]]:
    """Yield each container of a JSON value with each of its keys."""
    entries = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, inner in entries:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _leaves(inner)


def _change_value(folder: Path, dice: random.Random) -> str:
    path = folder / dice.choice(JSON_FILES)
    content = json.loads(path.read_text())
    container, key = dice.choice(list(_leaves(content)))
    value = dice.choice(HOSTILE_VALUES)
    container[key] = value
    path.write_text(json.dumps(content))
    return f"{path.name}: {key} = {str(value)[:30]!r}"


def _remove_value(folder: Path, dice: random.Random) -> str:
    path = folder / dice.choice(JSON_FILES)
    content = json.loads(path.read_text())
    container, key = dice.choice(list(_leaves(content)))
    del container[key]
    path.write_text(json.dumps(content))
    return f"{path.name}: without {key}"


def _flip_bytes(folder: Path, dice: random.Random) -> str:
    path = dice.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    data = bytearray(path.read_bytes())
    for _ in range(dice.choice((1, 3, 50))):
        data[dice.randrange(min(len(data), 20_000))] = dice.randrange(256)
    path.write_bytes(data)
    return f"{path.name}: bytes changed"


def _cut(folder: Path, dice: random.Random) -> str:
    path = dice.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    data = path.read_bytes()
    path.write_bytes(data[: dice.randrange(len(data))])
    return f"{path.name}: cut"


def _remove(folder: Path, dice: random.Random) -> str:
    path = dice.choice(sorted(folder.iterdir()))
    path.unlink()
    return f"{path.name}: removed"


def _exchange(folder: Path, dice: random.Random) -> str:
    one, other = dice.sample(sorted(folder.iterdir()), 2)
    shutil.copy(one, other)
    return f"{other.name}: a copy of {one.name}"


def _odd_file(folder: Path, dice: random.Random) -> str:
    path = dice.choice(sorted(folder.iterdir()))
    path.unlink()
    kind = dice.choice(("fifo", "folder", "device", "dangling", "loop", "outside"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        target = {"device": "/dev/zero", "dangling": "nothing", "loop": path.name, "outside": "/etc/passwd"}
        path.symlink_to(target[kind])
    return f"{path.name}: {kind}"


def _hostile_name(folder: Path, dice: random.Random) -> str:
    name = dice.choice(("\x1b[31m.safetensors", "a\nb.py", "é\udcff.safetensors", "-rf.bin", "$(id).pt"))
    (folder / name).write_bytes(b"")
    return f"a file {name!r}"


def _foreign(folder: Path, dice: random.Random) -> str:
    config = dice.choice(FOREIGN)
    (folder / "config.json").write_text(json.dumps(config))
    if dice.random() < 0.5:
        (folder / "hf_quant_config.json").unlink()
    return f"config.json: {str(config)[:60]}"


DAMAGES: tuple[Damage, ...] = (
    _change_value,
    _change_value,
    _change_value,
    _remove_value,
    _flip_bytes,
    _cut,
    _remove,
    _exchange,
    _odd_file,
    _hostile_name,
    _foreign,
)
# Success, bad input, host not fit, integrity, does not fit.
ALLOWED = (0, 2, 3, 4, 9)


def damaged(sound: Path, seed: int) -> Result:
    """Damage a copy of the folder `sound` and plan it on a CPU or for a GPU."""
    dice = random.Random(seed)
    profile = dice.choice(("cpu", "spark", "h200"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        shutil.copytree(sound, folder)
        description = dice.choice(DAMAGES)(folder, dice)
        words = ["plan", "--profile", profile, "--model", str(folder), "--state-dir", f"{scratch}/state"]
        words += ["--set", "max-model-len=64", "--explain"]
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = run(words)
    said = errors.getvalue()
    return Result(seed, description, code, said, _fault(code, said, output.getvalue()))


def _fault(code: int, said: str, output: str) -> str:
    if code not in ALLOWED:
        return "not one of the expected exit codes"
    if not all(letter.isprintable() or letter == "\n" for letter in said + output):
        return "a character that controls a terminal"
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if code in (2, 3, 4) and (len(lines) != 1 or len(lines[0]) > 600):
        return f"{len(lines)} lines of error"
    if code in (0, 9) and not output:
        return "no plan"
    return ""
