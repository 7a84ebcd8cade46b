#!/usr/bin/env python3
"""Run a command on a terminal and write its screens as an animated SVG.

python scripts/record_terminal.py docs/up.svg -- ./deckard up --profile cpu

The picture plays the screens in the time that they took. A wait of more than `LONGEST_S` is shortened to that, and
changes within `SHORTEST_S` are one screen.
"""

import argparse
import itertools
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jinja2
import pyte

COLUMNS, ROWS = 100, 22
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.43, 18, 16
LONGEST_S = 1.0
SHORTEST_S = 1.0
LAST_S = 8.0
COLOURS = {"green": "#3fb950", "red": "#f85149", "brown": "#d29922", "cyan": "#39c5cf", "blue": "#58a6ff"}

PICTURE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ width }} {{ height }}" width="{{ width }}" role="img"
     font-family="'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="14">
<title>A recording of a terminal</title>
<style>
text { fill: #c9d1d9; white-space: pre; }
g { visibility: hidden; animation: {{ "%.2f" | format(whole_s) }}s step-end infinite; }
{% for frame in frames %}
@keyframes k{{ loop.index }} {
  0% { visibility: {{ "visible" if loop.first else "hidden" }}; }
  {{ "%.3f" | format(frame.start) }}% { visibility: visible; }
  {{ "%.3f" | format(frame.end) }}% { visibility: hidden; }
}
#s{{ loop.index }} { animation-name: k{{ loop.index }}; }
{% endfor %}
@media (prefers-reduced-motion: reduce) {
  g { animation: none; }
  #s{{ frames | length }} { visibility: visible; }
}
</style>
<rect width="100%" height="100%" rx="10" fill="#0d1117"/>
{% for frame in frames %}
<g id="s{{ loop.index }}">
{% for runs in frame.rows %}
<text x="{{ margin }}" y="{{ margin + line_height * loop.index }}">
{%- for words, colour in runs -%}
<tspan{% if colour in colours %} fill="{{ colours[colour] }}"{% endif %}>{{ words }}</tspan>
{%- endfor -%}
</text>
{% endfor %}
</g>
{% endfor %}
</svg>
"""


class Screen(NamedTuple):
    """What a terminal shows from a moment on. rows: runs of text of one colour."""

    at_s: float
    rows: list[list[tuple[str, str]]]


def record(command: list[str]) -> list[Screen]:
    """Run a command and return its screens, each once."""
    ours, theirs = pty.openpty()
    terminal = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(terminal)
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm-256color"}
    stream.feed(f"$ {' '.join(command)}\r\n".encode())
    started = time.monotonic()
    screens = [Screen(0, rows_of(terminal))]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        while True:
            ready, _, _ = select.select([ours], [], [], 0.1)
            if ready:
                try:
                    data = os.read(ours, 1 << 16)
                except OSError:  # Linux's answer when the last writer has closed the terminal
                    break
                stream.feed(data)
            rows = rows_of(terminal)
            at_s = time.monotonic() - started
            if rows == screens[-1].rows:
                continue
            if at_s - screens[-1].at_s < SHORTEST_S and len(screens) > 1:
                screens[-1] = Screen(screens[-1].at_s, rows)
            else:
                screens.append(Screen(at_s, rows))
    if process.returncode:
        sys.exit(f"error: the command ended with exit code {process.returncode}")
    return screens


def rows_of(terminal: pyte.Screen) -> list[list[tuple[str, str]]]:
    """Return the runs of text of one colour in each row."""
    rows = []
    for number in range(terminal.lines):
        runs: list[tuple[str, str]] = []
        for column in range(terminal.columns):
            cell = terminal.buffer[number][column]
            if runs and runs[-1][1] == cell.fg:
                runs[-1] = (runs[-1][0] + cell.data, cell.fg)
            else:
                runs.append((cell.data, cell.fg))
        words, colour = runs[-1]
        rows.append([*runs[:-1], (words.rstrip(), colour)])
    return rows


def draw(screens: list[Screen]) -> str:
    """Return the SVG. Each screen is a group that is visible for its share of the animation."""
    shown_s = [min(after.at_s - before.at_s, LONGEST_S) for before, after in itertools.pairwise(screens)]
    shown_s.append(LAST_S)
    ends_s = list(itertools.accumulate(shown_s))
    frames = []
    for screen, length_s, end_s in zip(screens, shown_s, ends_s, strict=True):
        start = 100 * (end_s - length_s) / ends_s[-1]
        frames.append({"start": start, "end": 100 * end_s / ends_s[-1], "rows": screen.rows})
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PICTURE)
    return template.render(
        frames=frames,
        whole_s=ends_s[-1],
        width=COLUMNS * CELL_WIDTH + 2 * MARGIN,
        height=ROWS * LINE_HEIGHT + 2 * MARGIN,
        margin=MARGIN,
        line_height=LINE_HEIGHT,
        colours=COLOURS,
    )


def main() -> None:
    """Record the command after `--`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("svg", type=Path)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    arguments.svg.write_text(draw(record(arguments.command)), encoding="utf-8")


if __name__ == "__main__":
    main()
