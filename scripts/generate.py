#!/usr/bin/env python3
"""Write every file of this repository that is made from others.

python scripts/generate.py            write what is stale
python scripts/generate.py --check    write nothing; name what is stale and exit 1
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.option_schema import Option, OptionSchema, option_schema
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, EngineSpec, HardwareProfile, ModelSpec
from deckard_deploy.cli.main import cli
from deckard_deploy.cli.patch_choice import patched
from deckard_deploy.doctor.judge import RULES
from deckard_deploy.doctor.rules.engine import advisories
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from deckard_deploy.rendering.compose import render_compose
from deckard_deploy.rendering.gateway import CONFIG, render_gateway
from tests.faults.catalogue import FAULTS
from tests.faults.fault import file_of

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCTOR = ROOT / "docs" / "doctor.md"
FAULTS_PAGE = ROOT / "docs" / "faults.md"
EDITOR_SCHEMAS: dict[str, type[BaseModel]] = {
    "deckard": Deployment,
    "profile": HardwareProfile,
    "model": ModelSpec,
    "engine": EngineSpec,
}
JSON_TYPES: dict[str, dict[str, Any]] = {
    "flag": {"type": "boolean"},
    "toggle": {"type": "boolean"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "text": {"type": "string"},
    "json": {"type": ["object", "array", "string"]},
    "list": {"type": "array", "minItems": 1},
}
JSON_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


def targets() -> dict[Path, str]:
    """Every generated file and the text that it must hold."""
    pages = {
        ROOT / "docs" / "cli.md": command_reference(),
        DOCTOR: doctor_rules(),
        README: readme(),
        FAULTS_PAGE: faults(),
    }
    return editor_schemas() | compose_files() | pages


def compose_files() -> dict[Path, str]:
    """compose/: one file per built-in profile, as `render compose` writes it."""
    texts = {}
    for name in listing.names("profiles"):
        profile = library.profile(name)
        # The rehearsal's own engine needs no container; its twin in an image stands in for it here.
        engine = "vllm-0.19.1-cpu-docker" if library.engine(profile.engine).image is None else None
        resolved = resolve(Deployment(engine=engine), profile=profile)
        plan = patched(build_plan(resolved), resolved, DEFAULT_PATHS.patches)
        texts[ROOT / "compose" / f"{name}.yaml"] = render_compose(plan)
        # The same for all: what differs is on the other side.
        texts[ROOT / "compose" / CONFIG] = render_gateway(plan)
    return texts


def command_reference() -> str:
    """docs/cli.md: the `--help` of every command."""
    parts = ["# Commands\n\nThis file is made from `--help`; `scripts/generate.py` writes it.\n"]
    for words in walk(cli, ()):
        shown = CliRunner().invoke(cli, [*words, "--help"], prog_name="deckard-deploy", terminal_width=100)
        parts.append(f"## {' '.join(('deckard-deploy', *words))}\n\n```text\n{shown.output.rstrip()}\n```\n")
    return "\n".join(parts)


def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The words that call a command, and all below it."""
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below:
                yield from walk(below, (*words, name))


def readme() -> str:
    """README.md with the text between its `generated` marks made anew."""
    text = README.read_text(encoding="utf-8")
    rows = "".join(f"| `{entry.name}` | {entry.description} |\n" for entry in listing.entries("profiles"))
    text = between(text, "profiles", f"| profile | machine |\n|---|---|\n{rows}")
    # docs/patches.md has the table as `patches matrix` prints it; an end-to-end test reads the wheels again.
    page = (ROOT / "docs" / "patches.md").read_text(encoding="utf-8")
    matrix = page.partition("<!-- matrix -->\n")[2].partition("<!-- end -->")[0]
    return between(text, "patches", matrix)


def doctor_rules() -> str:
    """docs/doctor.md with its tables of rules and advisories made anew."""
    heads = "| rule | it says | why | source | stops `up` |\n|---|---|---|---|---|\n"
    rows = "".join(
        f"| `{rule.id}` | {rule.when} | {rule.why} | {rule.source} | {'yes' if rule.stops_up else ''} |\n"
        for rule in RULES
    )
    text = between(DOCTOR.read_text(encoding="utf-8"), "rules", heads + rows)
    heads = "| id | what | from | fixed in | reached here | what keeps it shut |\n|---|---|---|---|---|---|\n"
    rows = "".join(
        f"| {each.id} | {each.about} | {each.since or 'unknown'} | {each.fixed or 'unknown'} | {each.here} "
        f"| {each.mitigation} |\n"
        for each in advisories()
    )
    return between(text, "advisories", heads + rows)


def faults() -> str:
    """docs/faults.md with its table made anew, from the catalogue that the tests go through."""
    heads = "| guard mark | fault | what is said | proven by | what the test sees without the guard |\n"
    rows = "".join(
        f"| {fault.number} | {fault.fault} | {fault.said} "
        f"| {', '.join(dict.fromkeys(file_of(proof).removeprefix('tests/') for proof in fault.proofs))} "
        f"| {fault.otherwise} |\n"
        for fault in FAULTS
    )
    return between(FAULTS_PAGE.read_text(encoding="utf-8"), "faults", f"{heads}|---|---|---|---|---|\n{rows}")


def between(text: str, name: str, new: str) -> str:
    """`text` with what stands between the marks of that name replaced. Raises ValueError without marks."""
    first = f"<!-- generated: {name} -->\n"
    start = text.index(first) + len(first)
    return text[:start] + new + text[text.index("<!-- end -->", start) :]


def editor_schemas() -> dict[Path, str]:
    """docs/schemas/: what yaml-language-server checks deckard.yaml and the catalog's files against."""
    releases = [
        option_schema(name)
        for name in sorted({library.engine(n).option_schema for n in listing.names("engines")})
    ]
    return {
        ROOT / "docs" / "schemas" / f"{name}.schema.json": _text(spec, releases)
        for name, spec in EDITOR_SCHEMAS.items()
    }


def _text(spec: type[BaseModel], releases: list[OptionSchema]) -> str:
    schema = spec.model_json_schema()
    if "serve" in schema["properties"]:
        options = {name: option for release in releases for name, option in release.options.items()}
        schema["properties"]["serve"] = {
            "type": "object",
            "description": "options of `vllm serve`, without the dashes in front; null takes one out again",
            "properties": {name: _option(option) for name, option in options.items()},
            "additionalProperties": False,
        }
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _option(option: Option) -> dict[str, Any]:
    numbers = [choice for choice in option.choices if isinstance(choice, int)]
    words = [choice for choice in option.choices if isinstance(choice, str)]
    if option.kind == "list":
        kind = {**JSON_TYPES["list"], "items": {"enum": words} if words else JSON_TYPES[option.items]}
    elif option.kind == "text" and words:
        kind = {"enum": words}
    elif numbers:
        kind = {"enum": numbers}
    else:
        kind = JSON_TYPES[option.kind] | {JSON_BOUNDS[name]: bound for name, bound in option.bounds.items()}
    alternatives = [kind, {"type": "null"}]
    if option.kind == "integer" and words:
        alternatives.insert(1, {"enum": words})
    return {"anyOf": alternatives} | ({} if option.default is None else {"default": option.default})


def stale(texts: dict[Path, str]) -> list[Path]:
    """The files that do not hold what they must."""
    return [
        path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """The command line."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    check = arguments.parse_args().check
    texts = targets()
    found = stale(texts)
    for path in found:
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
