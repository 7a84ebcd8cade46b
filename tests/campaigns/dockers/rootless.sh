#!/bin/bash
# The verbs on a rootless docker of another Debian suite, as a user. Needs the variables and the root of matrix.sh, and in the
# root: rootlesskit slirp4netns uidmap iproute2. The user is uid 1000 on both sides, and must be able to read this checkout and
# its Python (PYTHON).
#
#   tests/campaigns/dockers/rootless.sh /tmp/dockers/trixie
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$1
folder=$(mktemp -d /tmp/rootless.XXXXXX)
mkdir "$folder/run" "$folder/home"
chown -R 1000:1000 "$folder"
grep -q '^ops:' "$root/etc/passwd" || echo 'ops:x:1000:1000::/tmp:/bin/bash' >>"$root/etc/passwd"
echo 'ops:100000:65536' >"$root/etc/subuid"
cp "$root/etc/subuid" "$root/etc/subgid"
export DOCKER_HOST="unix://$folder/run/docker.sock"
as_user() { setpriv --reuid 1000 --regid 1000 --clear-groups env HOME="$folder/home" XDG_RUNTIME_DIR="$folder/run" "$@"; }

unshare --mount bash -eu -c '
root=$1 folder=$2
mount --make-rprivate /
mount --bind "$root" "$root"
for each in /proc /sys /dev /tmp; do
    mkdir -p "$root$each"
    mount --rbind "$each" "$root$each"
done
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev/net"
mknod -m 666 "$root/dev/net/tun" c 10 200
mkdir -p "$root/mnt"
cd "$root"
pivot_root . mnt
cd /
umount -l /mnt
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=$folder/home XDG_RUNTIME_DIR=$folder/run
exec setpriv --reuid 1000 --regid 1000 --clear-groups /usr/share/docker.io/contrib/dockerd-rootless.sh --data-root "$folder/data"
' - "$root" "$folder" >"$folder/dockerd.log" 2>&1 &
engine=$!
for _ in $(seq 120); do
    docker version >/dev/null 2>&1 && break
    sleep 0.5
done
docker version --format 'docker {{.Server.Version}}' || tail -20 "$folder/dockerd.log"
docker info --format '{{.SecurityOptions}} {{.Driver}}'
as_user docker load --quiet --input "$IMAGES"
as_user "$here/verbs.sh" "$folder"
failed=$?
kill -TERM $engine
wait $engine
rm -rf "$folder"
exit $failed
