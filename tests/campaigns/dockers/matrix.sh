#!/bin/bash
# The verbs on a docker of another Debian suite, in a network of its own.
#
#   mmdebstrap --variant=minbase --include=docker.io,iptables,ca-certificates trixie /tmp/dockers/trixie    # 26.1.5
#   docker build -t deckard-deploy-test/fake-vllm:local --build-arg REAL=... --build-arg BASE=... tests/campaigns/dockers/image
#   docker save deckard-deploy-test/fake-vllm:local NGINX -o /tmp/dockers/images.tar
#   export ENGINE_IMAGE=deckard-deploy-test/fake-vllm:local GATEWAY_IMAGE=NGINX IMAGES=/tmp/dockers/images.tar
#   unshare --mount --net tests/campaigns/dockers/matrix.sh /tmp/dockers/trixie [OPTIONS OF DOCKERD]
#
# sid (28.5.2) also needs: --aptopt='Acquire::Check-Valid-Until "false"' and a newer keyring (trixie's) where its Release
# file has expired. With `--feature containerd-snapshotter=true` it has the image store of docker 29. Needs root; the root
# folder and FOLDER must be below /tmp, which both sides see.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$1
shift
folder=$(mktemp -d /tmp/dockers.XXXXXX)
mkdir "$folder/data" "$folder/run"
ip link set lo up
export DOCKER_HOST="unix://$folder/run/docker.sock"
unshare --mount "$here/engine.sh" "$root" "$folder" "$@" &
engine=$!
for _ in $(seq 60); do
    docker version >/dev/null 2>&1 && break
    sleep 0.5
done
docker version --format 'docker {{.Server.Version}}' || tail -5 "$folder/dockerd.log"
docker load --quiet --input "$IMAGES"
"$here/verbs.sh" "$folder"
kill -TERM $engine
wait $engine
rm -rf "$folder"
