# ruff: noqa: INP001  Sphinx reads this file, and nothing imports it
"""Configuration of the site, which Sphinx builds from the Markdown pages of this folder (scripts/docs)."""

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
# Pages of the repository's root, which the site shows too.
PROJECT_PAGES = ("CONTRIBUTING", "SECURITY", "CHANGELOG")

project = "deckard-deploy"
author = "the deckard-deploy authors"
release = re.findall(r'__version__ = "(.+)"', (ROOT / "deckard_deploy" / "__init__.py").read_text("utf-8"))[0]
version = release

extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "index"
myst_heading_anchors = 4
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = f"deckard-deploy {release}"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False


def show_project_pages(_: Sphinx, page: str, source: list[str]) -> None:
    """Put the files of the root into the pages of project/, and let links lead there.

    The Markdown files themselves keep the links that work in the repository.
    """
    text = source[0]
    if page.startswith("project/"):
        text = (ROOT / f"{Path(page).name.upper()}.md").read_text(encoding="utf-8")
        text = text.replace("](docs/", "](../")
        text = re.sub(r"(?m)^\[.+\]: \.\./\.\./.+$", "", text)  # links to pages of the repository's host
        for name in PROJECT_PAGES:
            text = text.replace(f"]({name}.md", f"]({name.lower()}.md")
    for name in PROJECT_PAGES:
        text = text.replace(f"](../{name}.md", f"](project/{name.lower()}.md")
    source[0] = text


def setup(app: Sphinx) -> None:
    """Connect the reader of sources."""
    app.connect("source-read", show_project_pages)
