"""The Jinja2 environment of templates/: an undefined name is an error, every scalar goes through a filter."""

import json
import re
import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

from deckard_deploy.resources import templates_dir

if TYPE_CHECKING:
    import jinja2

# Printable in JSON, not in YAML 1.1 (section 5.1), and so escaped.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@cache
def environment() -> "jinja2.Environment":
    """Templates lay out and comment; they never quote."""
    import jinja2  # noqa: PLC0415  heavy, and `--help` must not pay for it

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_dir()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  YAML and shell, not HTML: the `yaml` filter and shlex quote
    )
    made.filters["yaml"] = yaml_scalar
    made.filters["unit_word"] = unit_word
    made.filters["shell_word"] = shell_word
    return made


def yaml_scalar(value: Any) -> str:  # noqa: ANN401  any JSON value
    """A JSON value as one line of YAML that no reader can take for anything else, `$` doubled for compose."""
    text = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).replace("$", "$$")


def unit_word(text: str) -> str:
    """One word of a systemd setting, quoted, `%` doubled (systemd.syntax(7), systemd.unit(5))."""
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted).replace("%", "%%")


def shell_word(text: str) -> str:
    """One word of a shell line, quoted but for a `~/` in front, which the shell is to expand."""
    return "~/" + shlex.quote(text[2:]) if text.startswith("~/") else shlex.quote(text)
