#!/bin/bash
# Ask every checkpoint of quantized.py at once. Usage: validation/gpu/quantized.sh FOLDER OUT (FOLDER: modelopt_marlin.py prepare)
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$1 out=$2
set -a; . "$folder/environment"; set +a
export PYTHONPATH="$PYTHONPATH:$root"
export VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 VLLM_ALLREDUCE_USE_SYMM_MEM=0 OMP_NUM_THREADS=2
models=$folder/quantized
mkdir -p "$models" "$out"
[ -d "$folder/checkpoints/text" ] || CUDA_VISIBLE_DEVICES='' python3 -m validation.gpu.checkpoints "$folder/checkpoints" || exit 1
python3 -m validation.gpu.quantized write "$folder/checkpoints/text" "$models" || exit 1
ask() { # gpu model dtype gpus name
  CUDA_VISIBLE_DEVICES=$1 VLLM_CACHE_ROOT="$folder/cache-$5" timeout 200 \
    python3 -m validation.gpu.quantized ask "$models/$2" "$3" "$4" "$out/$5.json" >"$out/$5.log" 2>&1 || echo "$5 failed" >&2
}
for name in NVFP4 NVFP4_AWQ NVFP4_SVD NVFP4_AWQ_nan; do
  ask 0 "$name.reference" float32 1 "$name.reference-float32" &
  ask 0 "$name.reference" bfloat16 1 "$name.reference-bfloat16" &
  ask 0 "$name" bfloat16 1 "$name-marlin" &
  VLLM_USE_NVFP4_CT_EMULATIONS=1 ask 0 "$name" bfloat16 1 "$name-emulation" &
  if [ "$(nvidia-smi -L | wc -l)" -gt 1 ]; then ask 0,1 "$name" bfloat16 2 "$name-marlin2" & fi
done
wait
python3 -m validation.gpu.quantized table "$out"
