#!/bin/sh
# Make .venv from requirements/$1.txt (every hash checked) and this checkout, unless it is made already.
set -eu
cd "$(dirname "$0")/.."
want=$1
stamp=.venv/made-from
# The scripts of a moved or copied .venv still name the place where it was made, and would run the code there.
is_here() { grep -qF "$(pwd -P)/.venv/bin/python" .venv/bin/deckard-deploy 2>/dev/null; }
current() { cat "requirements/$1.txt" pyproject.toml | cksum; }
if is_here && [ -f "$stamp-$want" ] && [ "$(cat "$stamp-$want")" = "$(current "$want")" ]; then exit 0; fi
# Development requirements include the runtime's.
if is_here && [ "$want" = runtime ] && [ -f "$stamp-dev" ] && [ "$(cat "$stamp-dev")" = "$(current dev)" ]; then exit 0; fi
[ ! -L .venv ] || { echo "error: .venv is a link, and would be emptied where it leads" >&2; exit 3; }
python=
for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
done
[ -n "$python" ] || { echo "error: Python 3.11 or later was not found; try: PYTHON=/path/to/python3.11 $0" >&2; exit 3; }
echo "making .venv: about 150 MB, a minute or more" >&2
"$python" -m venv --clear .venv || { echo "error: this Python has no venv; try: apt-get install python3-venv" >&2; exit 3; }
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "requirements/$want.txt"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
current "$want" > "$stamp-$want"
