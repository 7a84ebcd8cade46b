#!/usr/bin/env python3
"""Write every file of this repository that is generated from others.

python scripts/generate.py            write what is stale
python scripts/generate.py --check    write nothing; name what is stale and exit 1
"""

import argparse
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deckard_deploy import api
from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.option_schema import Option, OptionSchema, option_schema
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, EngineSpec, HardwareProfile, ModelSpec
from deckard_deploy.cli.main import cli
from deckard_deploy.doctor.judge import RULES
from deckard_deploy.doctor.rules.engine import advisories
from deckard_deploy.failures.signatures import TOPICS, Signature, signatures_of
from deckard_deploy.operations.patches import with_needed_patches
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
LAZY_PACKAGES = (ROOT / "deckard_deploy" / "operations", ROOT / "deckard_deploy" / "cli" / "screens")
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

TROUBLESHOOTING = """\
# Troubleshooting

The failures of vLLM and docker that this tool knows, with cause and fix. This file is made from
`deckard_deploy/failures/known/`; `scripts/generate.py` writes it. To search any log for them:

```sh
docker logs NAME 2>&1 | deckard-deploy diagnose -
docker compose logs SERVICE | deckard-deploy diagnose -
deckard-deploy diagnose engine.log --exit-code 1
```

Values in capitals are those of the log.
"""


def targets() -> dict[Path, str]:
    """Return every generated file with its text."""
    pages = {
        ROOT / "docs" / "cli.md": command_reference(),
        ROOT / "docs" / "api.md": api_reference(),
        DOCTOR: doctor_rules(),
        README: readme(),
        FAULTS_PAGE: faults(),
        ROOT / "docs" / "troubleshooting.md": troubleshooting(),
    }
    return editor_schemas() | compose_files() | pages | stubs_of_lazy_packages()


def troubleshooting() -> str:
    """docs/troubleshooting.md: a heading for each known failure, by topic."""
    parts = [TROUBLESHOOTING]
    for heading in TOPICS.values():
        parts.append(f"* [{heading}](#{_anchor(heading)})")
    for topic, heading in TOPICS.items():
        parts.append(f"\n## {heading}\n")
        parts += [_known_failure(signature) for signature in signatures_of(topic)]
    return "\n".join(parts)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _known_failure(signature: Signature) -> str:
    lines = [f"### {_plain(signature.title)}\n"]
    if signature.example:
        lines.append(f"```text\n{signature.example.strip()}\n```\n")
    codes = [str(code) for code in signature.exit_codes if code > 0]
    if codes:
        lines.append(f"Exit code: {', '.join(codes)}\n")
    lines.append(f"Cause: {_plain(_values_as_words(signature.cause))}.\n")
    lines.append(f"Fix: {_plain(_values_as_words(signature.fix))}\n")
    lines.append(f"`{signature.id}`; source: {_plain(signature.source)}\n")
    return "\n".join(lines)


def _values_as_words(text: str) -> str:
    """Return a text with the names of its values in capitals: `{limit}` is LIMIT."""
    found = re.sub(r"(?<!\{)\{(\w+)\}(?!\})", lambda match: match[1].upper(), text)
    return found.replace("{{", "{").replace("}}", "}")


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return re.sub(r"([*_<>`\[\]|])", r"\\\1", text)


def stubs_of_lazy_packages() -> dict[Path, str]:
    """Return the stub of each package whose modules load at first use: a type checker sees them all."""
    stubs = {}
    for folder in LAZY_PACKAGES:
        package = ".".join(folder.relative_to(ROOT).parts)
        lines = ["# The modules of this package; scripts/generate.py writes this file."]
        for path in sorted(folder.glob("[a-z]*.py")):
            lines.append(f"from {package} import {path.stem} as {path.stem}")
        stubs[folder / "__init__.pyi"] = "\n".join(lines) + "\n"
    return stubs


def api_reference() -> str:
    """Return docs/api.md: the Python API from its docstrings and signatures."""
    parts = [
        f"# Python API\n\nThis file is made from docstrings; `scripts/generate.py` writes it.\n\n{_docstring(api)}\n"
    ]
    for name in api.__all__:
        member = getattr(api, name)
        if getattr(member, "__module__", None) == api.__name__ or name == "Choice":
            signature = inspect.signature(member)
            shown = f"{name}{signature}" if inspect.isfunction(member) else f"class {name}{signature}"
            parts.append(
                f"## `{name}`\n\n```python\n{_plain_signature(shown)}\n```\n\n{_docstring(member)}\n"
            )
    return "\n".join(parts)


def _docstring(member: object) -> str:
    """Return a docstring as Markdown: an indented block is a code block of Python."""
    text = inspect.getdoc(member) or ""
    return re.sub(r"(?:(?:^|\n)    [^\n]*|\n(?=\n    ))+", _code_block, text)


def _code_block(match: re.Match[str]) -> str:
    return f"\n\n```python\n{textwrap.dedent(match[0]).strip()}\n```"


def _plain_signature(text: str) -> str:
    """Return a signature without the paths of modules, one parameter a line where it is long."""
    text = re.sub(r"\b[a-z_]\w*(?:\.[a-z_]\w*)*\.(?=[A-Z])", "", text)
    text = re.sub(r"<\w+ object at 0x[0-9a-f]+>", "SILENT", text)
    if len(text) <= 100:
        return text
    head, _, rest = text.partition("(")
    parameters, _, returned = rest.rpartition(")")
    lines = re.split(r", (?=\*|\w+:)", parameters)
    return f"{head}(\n    " + ",\n    ".join(lines) + f",\n){returned}"


def compose_files() -> dict[Path, str]:
    """compose/: one file per built-in profile, as `render compose` writes it."""
    texts = {}
    for name in listing.names("profiles"):
        profile = library.profile(name)
        # The rehearsal's own engine needs no container; its twin in an image stands in for it here.
        engine = "vllm-0.19.1-cpu-docker" if library.engine(profile.engine).image is None else None
        resolved = resolve(Deployment(engine=engine), profile=profile)
        plan = with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches)
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
    """Yield the words that call a command, and those of all its subcommands."""
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below:
                yield from walk(below, (*words, name))


def readme() -> str:
    """Return README.md with the text between its `generated` marks generated again."""
    text = README.read_text(encoding="utf-8")
    rows = "".join(f"| `{entry.name}` | {entry.description} |\n" for entry in listing.entries("profiles"))
    text = between(text, "profiles", f"| profile | machine |\n|---|---|\n{rows}")
    # docs/patches.md has the table as `patches matrix` prints it; an end-to-end test reads the wheels again.
    page = (ROOT / "docs" / "patches.md").read_text(encoding="utf-8")
    matrix = page.partition("<!-- matrix -->\n")[2].partition("<!-- end -->")[0]
    return between(text, "patches", matrix)


def doctor_rules() -> str:
    """Return docs/doctor.md with its tables of rules and advisories generated again."""
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
    """Return docs/faults.md with its table generated again, from the catalogue of the tests."""
    heads = "| guard mark | fault | what is said | proven by | what the test sees without the guard |\n"
    rows = "".join(
        f"| {fault.number} | {fault.fault} | {fault.said} "
        f"| {', '.join(dict.fromkeys(file_of(proof).removeprefix('tests/') for proof in fault.proofs))} "
        f"| {fault.otherwise} |\n"
        for fault in FAULTS
    )
    return between(FAULTS_PAGE.read_text(encoding="utf-8"), "faults", f"{heads}|---|---|---|---|---|\n{rows}")


def between(text: str, name: str, new: str) -> str:
    """Return `text` with the part between the marks of that name replaced. Raises ValueError without marks."""
    first = f"<!-- generated: {name} -->\n"
    start = text.index(first) + len(first)
    return text[:start] + new + text[text.index("<!-- end -->", start) :]


def editor_schemas() -> dict[Path, str]:
    """Return docs/schemas/: the schemas for yaml-language-server of deckard.yaml and the catalog's files."""
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
    """Return the files whose text differs."""
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
