"""The Jinja2 environment of templates/: undefined names are errors, and filters quote every scalar."""

import json
import re
import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

from deckard_deploy.resources import templates_dir

if TYPE_CHECKING:
    import jinja2

# Escaped, because JSON prints these characters and YAML 1.1 does not allow them (section 5.1).
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@cache
def environment() -> "jinja2.Environment":
    """Return the environment. Templates lay out and comment; they never quote."""
    import jinja2  # noqa: PLC0415  heavy, and `--help` must not pay for it

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_dir()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  YAML and shell, not HTML: the `yaml` filter and shlex quote
    )
    templates.filters["yaml"] = yaml_scalar
    templates.filters["unit_word"] = unit_word
    templates.filters["shell_word"] = shell_word
    return templates


def yaml_scalar(value: Any) -> str:  # noqa: ANN401  any JSON value
    """Return a JSON value as one line of unambiguous YAML, with `$` doubled for compose."""
    return _json_text(value).replace("$", "$$")


def unit_word(text: str) -> str:
    """Return one quoted word of a systemd setting, with `%` doubled (systemd.syntax(7), systemd.unit(5))."""
    return _json_text(text).replace("%", "%%")


def shell_word(text: str) -> str:
    """Return one quoted word of a shell line, without quotes around `~/`, which the shell expands."""
    if text.startswith("~/"):
        return "~/" + shlex.quote(text[2:])
    return shlex.quote(text)


def _json_text(value: Any) -> str:  # noqa: ANN401  any JSON value
    text = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
