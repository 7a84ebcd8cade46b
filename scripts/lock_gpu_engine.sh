#!/usr/bin/env bash
# Resolve vLLM's CUDA build once, with the hash of every wheel, into the lock that the process runtime installs from.
#
#   scripts/lock_gpu_engine.sh VERSION    rewrite what is generated for vLLM VERSION (needs uv and a package index)
#
# engine.txt      everything but PyTorch
# torch-pypi.txt  PyTorch as the Python Package Index has it, with its CUDA libraries
set -euo pipefail

version=${1:?which vLLM: 0.19.1 or 0.33.0}
# The day that the set was resolved: later releases of the others were never resolved with this vLLM.
case $version in
0.19.1) resolved_on=2026-04-25 ;;
0.33.0) resolved_on=2026-11-20 ;;
*) echo "error: no day is known for vLLM $version; add it to this script" >&2 && exit 2 ;;
esac
locks=$(cd "$(dirname "$0")/.." && pwd)/deckard_deploy/running/process/locks/vllm-$version-cuda
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
echo "vllm==$version" >requirements.txt
# Nothing that serves Gemma 4 imports torchaudio or torchcodec (scripts/lock_cpu_engine.sh).
printf "torchaudio ; sys_platform == 'never'\ntorchcodec ; sys_platform == 'never'\n" >overrides.txt
uv pip compile requirements.txt --override overrides.txt --universal --python-version 3.11 --only-binary :all: \
  --exclude-newer "$resolved_on" --generate-hashes --no-emit-index-url --no-annotate --no-header \
  --no-emit-package torchaudio --no-emit-package torchcodec --quiet -o all.txt

mkdir -p "$locks"
for part in engine.txt torch-pypi.txt; do
  echo "# Made by scripts/lock_gpu_engine.sh; do not edit." >"$locks/$part"
done
awk -v engine="$locks/engine.txt" -v torch="$locks/torch-pypi.txt" '
  /^[a-z0-9]/ { part = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==/ ? torch : engine }
  { print >>part }
' all.txt
