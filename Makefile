# Names for what a person runs: `make help` lists them.
.PHONY: help unit check e2e test coverage lint format generate lock bench venv
.DEFAULT_GOAL := help
bin := .venv/bin
# Tests start the program hundreds of times: each would compile it again.
unexport PYTHONDONTWRITEBYTECODE

help: ## list these targets
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' Makefile | expand -t 12

venv:
	@scripts/venv.sh dev

unit: venv ## unit tests without the slow ones, two at a time: under two minutes on two cores
	$(bin)/pytest tests/unit tests/faults -m "not slow" -n 2

check: lint unit ## lint and unit: under three minutes

e2e: venv ## end to end, one after the other: a real vLLM, docker, nginx; what is missing here is skipped
	$(bin)/pytest tests/e2e

test: ## everything, as CI does: about 20 minutes on two cores
	scripts/test

coverage: venv ## what the unit tests cover, with a floor
	$(bin)/pytest tests/unit -n 2 --cov

lint: ## format, lint, types, complexity, spelling, generated files
	scripts/lint

format: venv ## format, and fix what ruff can fix
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

generate: venv ## write the generated files again
	$(bin)/python scripts/generate.py

lock: ## resolve requirements/*.txt again (needs uv)
	scripts/lock_requirements.sh

bench: venv ## time the program's own commands
	$(bin)/python benchmarks/run.py
