# Names for what scripts/ does.
.PHONY: test lint generate lock bench

test:
	scripts/test

lint:
	scripts/venv.sh dev
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

generate:
	scripts/venv.sh dev
	.venv/bin/python scripts/generate.py

lock:
	scripts/lock_requirements.sh

bench:
	scripts/venv.sh dev
	.venv/bin/python benchmarks/run.py
