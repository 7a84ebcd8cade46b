#!/bin/sh
# Resolve requirements/{runtime,dev}.txt anew from pyproject.toml. Needs uv.
set -eu
cd "$(dirname "$0")/.."
lock() {
    uv pip compile --quiet pyproject.toml requirements/build.in --extra cpu --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-annotate --no-header "$@"
}
lock -o requirements/runtime.txt
lock --extra report --group dev -o requirements/dev.txt
uv pip compile --quiet requirements/engine-tests.in --universal --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/engine-tests.txt
