#!/usr/bin/env bash
# Build the CPU test image without a registry and print its tag. Its tag is the hash of what it is made of: an image
# that is there already is not built again.
#
#   tests/e2e/image/build.sh          needs docker with buildx, mmdebstrap, and a $PYTHON that has the uv package;
#                                     takes two minutes and 6 GB of disk
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
locks=$here/../../../deckard_deploy/running/process/locks/vllm-0.19.1-cpu
suite=bookworm
packages="ca-certificates,curl,gcc,libc6-dev,libnuma1,python3-minimal,python3-distutils"
ca=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}

say() { echo "build.sh: $*" >&2; }
short_hash() { sha256sum | cut -c1-12; }

tag=deckard-deploy-test/vllm-cpu:0.19.1-$(
  cd "$here" && cat build.sh Dockerfile stub_cuda.py "$locks"/engine.txt "$locks"/torch-pypi.txt | short_hash
)
if docker image inspect "$tag" >/dev/null 2>&1; then
  echo "$tag"
  exit
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

base=deckard-deploy-test/base:$(echo "$suite $packages" | short_hash)
if ! docker image inspect "$base" >/dev/null 2>&1; then
  say "making the base $base"
  mmdebstrap --quiet --variant=minbase --include="$packages" "$suite" "$context/base.tar"
  docker import "$context/base.tar" "$base" >/dev/null
  rm "$context/base.tar"
fi

# The lock less what only a GPU needs: stub_cuda.py stands in for the libraries, nothing for triton.
awk '
  /^[a-z0-9]/ { kept = !/^(triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ || /^nvidia-cuda-(runtime|cupti)-cu12==/ }
  kept
' "$locks/engine.txt" "$locks/torch-pypi.txt" >"$context/requirements.txt"
cp "$here/stub_cuda.py" "$context/"
cp "$("${PYTHON:-python3}" -c 'import uv; print(uv.find_uv_bin())')" "$context/uv"

say "building $tag"
DOCKER_BUILDKIT=1 docker build --quiet --network host --secret "id=ca,src=$ca" --build-arg "BASE=$base" \
  --tag "$tag" --file "$here/Dockerfile" "$context" >&2
echo "$tag"
