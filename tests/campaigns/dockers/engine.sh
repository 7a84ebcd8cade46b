#!/bin/bash
# A dockerd of another Debian suite, for matrix.sh. Runs in a mount namespace of its own, pivoted into the suite's root:
# in a chroot `docker exec` would enter the host's root instead of the container's.
#   engine.sh ROOT FOLDER [OPTIONS OF DOCKERD]
set -eu
root=$1 folder=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
for each in /proc /sys /dev /tmp; do
    mkdir -p "$root$each"
    mount --rbind "$each" "$root$each"
done
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/mnt"
cd "$root"
pivot_root . mnt
cd /
umount -l /mnt
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
containerd --root "$folder/data/containerd" --state "$folder/run/containerd" \
    --address "$folder/run/containerd.sock" >"$folder/containerd.log" 2>&1 &
containerd=$!
sleep 2
dockerd --host "unix://$folder/run/docker.sock" --data-root "$folder/data" --exec-root "$folder/run/exec" \
    --pidfile "$folder/run/pid" --containerd "$folder/run/containerd.sock" "$@" >"$folder/dockerd.log" 2>&1 &
dockerd=$!
trap 'kill $dockerd; wait $dockerd; kill $containerd; wait $containerd' TERM
wait $dockerd
