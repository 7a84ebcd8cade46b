#!/usr/bin/env bash
# Build a stand-in for nginxinc/nginx-unprivileged without a registry, and print its tag: Debian's nginx, with that
# image's user (101) and port (8080). Its tag is the hash of this file: an image that is there is not built again.
#
#   tests/e2e/image/gateway.sh        needs docker and mmdebstrap; takes a minute
set -euo pipefail

tag=deckard-deploy-test/nginx:$(sha256sum "$0" | cut -c1-12)
if docker image inspect "$tag" >/dev/null 2>&1; then
  echo "$tag"
  exit
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mmdebstrap --quiet --variant=minbase --include=nginx-light bookworm "$folder/root.tar"
docker import --change 'USER 101' --change 'EXPOSE 8080' "$folder/root.tar" "$tag" >/dev/null
echo "$tag"
