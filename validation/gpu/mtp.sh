#!/bin/bash
# Usage: validation/gpu/mtp.sh SITE WORK OUT CASE...   CASE: text:KIND:MODE[:FORMAT] or speed:ALGO:TOKENS@GPU; speeds of a GPU run in turn
set -u
site=$1 work=$2 out=$3
shift 3
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$work" "$out"
# FlashInfer is not carried; in-process, so that the runner can be looked at.
wheel=$(PYTHONPATH="$site:$root" python3 -c 'import sys
from pathlib import Path
from deckard_deploy.patching import plugin
print(plugin.build(plugin.NAME, Path(sys.argv[1], plugin.WHEEL).resolve()))' "$work") || exit 1
export PYTHONPATH="$wheel:$site:$root" VLLM_USE_FLASHINFER_SAMPLER=0 VLLM_ENABLE_V1_MULTIPROCESSING=0
export VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=2
one() { # gpu name arguments...
  local gpu=$1 name=$2 verb=$3
  shift 3
  CUDA_VISIBLE_DEVICES=$gpu VLLM_CACHE_ROOT=$work/cache$gpu timeout "${LIMIT_S:-260}" \
    python3 -m validation.gpu.mtp_case "$verb" "$work/$name" "$out/$name.json" "$@" >"$out/$name.log" 2>&1
  echo "$name: $(tail -n 1 "$out/$name.log")"
}
turn() { # gpu cases...
  local gpu=$1
  shift
  for case in "$@"; do
    IFS=: read -r verb first second third <<<"${case%@*}"
    one "$gpu" "$verb-$first-$second${third:+-$third}" "$verb" "$first" "$second" ${third:+"$third"}
  done
}
for case in "$@"; do [[ $case == text:* ]] && turn 0 "$case" & done
wait
for gpu in 0 1; do
  mine=()
  for case in "$@"; do [[ $case == speed:*@$gpu ]] && mine+=("$case"); done
  turn "$gpu" "${mine[@]}" &
done
wait
