#!/usr/bin/env bash
# Resolve NVIDIA's ModelOpt once, with the hash of every wheel, into the lock that `quantize` installs from.
#
#   scripts/lock_modelopt.sh    rewrite what is generated (needs uv and a package index)
#
# engine.txt      everything but PyTorch
# torch-pypi.txt  PyTorch as the Python Package Index has it: with all its CUDA libraries
# torch-cpu.txt   PyTorch's own CPU build: the hashes of the lock of vLLM 0.32.0, which its head says the origin of
set -euo pipefail

# ModelOpt 0.47.0 asks for torch >= 2.8, and its extra [hf] for transformers >= 4.57 and < 5.15. 2.13.0 is the release of
# which the lock of vLLM 0.32.0 has the CPU build, and its cast to float8_e4m3fn saturates where 2.11's makes NaN.
# The extra itself is not taken: it brings deepspeed and diffusers, which nothing here imports. requests is imported by
# the base install and not declared by it; pyarrow reads data sets in Parquet; ninja compiles ModelOpt's CUDA extension.
torch=2.13.0 resolved_on=2026-11-20
locks=$(cd "$(dirname "$0")/.." && pwd)/deckard_deploy/running/process/locks
own=$locks/modelopt-0.47.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/requirements.txt" <<REQUIREMENTS
nvidia-modelopt==0.47.0
torch==$torch
transformers==5.14.1
accelerate
jinja2
ninja
pyarrow
requests
REQUIREMENTS

cd "$work"
uv pip compile requirements.txt --universal --python-version 3.11 --only-binary :all: --exclude-newer "$resolved_on" \
  --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet -o all.txt

mkdir -p "$own"
for part in engine.txt torch-pypi.txt torch-cpu.txt; do
  echo "# Made by scripts/lock_modelopt.sh; do not edit." >"$own/$part"
done
awk -v engine="$own/engine.txt" -v torch="$own/torch-pypi.txt" '
  /^[a-z0-9]/ { part = /^(torch|triton|nvidia-c[a-z0-9-]+|nvidia-n[a-z0-9-]+|cuda-[a-z]+)==/ ? torch : engine }
  /^nvidia-ml-py==/ { part = engine }
  { print >>part }
' all.txt
awk '/^[a-z0-9]/ { kept = /^torch==/ } kept' "$locks/vllm-0.32.0-cpu/torch-cpu.txt" >>"$own/torch-cpu.txt"
