#!/usr/bin/env bash
# Builds the image of the Dockerfile without a container engine. Then runs the demo in it like a container: as the
# image's user, on a read-only file system. For machines that have no Docker and cannot pull a base image.
#
# Usage, as root on Debian with the packages buildah and debootstrap: deploy/try_image.sh FOLDER
# FOLDER is scratch space of 12 GB. The base is Debian with its own Python instead of the official Python image.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(realpath -m "$1")
mkdir -p "$scratch/context"
buildah() { command buildah --root "$scratch/storage" --runroot "$scratch/run" --storage-driver vfs "$@"; }

if ! buildah inspect --type image localhost/python:base >/dev/null 2>&1; then
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$scratch/base"
  ln -sf python3 "$scratch/base/usr/bin/python"
  container=$(buildah from scratch)
  buildah copy --quiet "$container" "$scratch/base" /
  buildah commit --quiet --rm "$container" localhost/python:base
fi

while read -r path; do cp -a "$root/$path" "$scratch/context/"; done < <(sed -n 's/^!//p' "$root/deploy/Dockerfile.dockerignore")
mounts=()
for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do [ -e "$file" ] && mounts+=(--volume "$file:$file:ro"); done
buildah bud --isolation chroot --format docker --layers "${mounts[@]}" --build-arg PYTHON_IMAGE=localhost/python:base \
  -f "$root/deploy/Dockerfile" -t facestream "$scratch/context"

container=$(buildah from --pull-never localhost/facestream)
trap 'buildah rm "$container" >/dev/null' EXIT
image=$(buildah mount "$container")
mapfile -t settings < <(buildah inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' localhost/facestream | grep .)
export image
# A namespace of its own, so that the mounts are gone when it ends.
unshare --mount bash -euo pipefail -c '
  mount --bind "$image" "$image"
  mount --bind /dev "$image/dev"
  mount --bind /proc "$image/proc"
  mount -o remount,bind,ro "$image"
  mount -t tmpfs -o mode=1777 tmpfs "$image/tmp"
  for folder in var/lib/facestream var/cache/facestream; do
    mount -t tmpfs -o uid=10001,gid=10001,mode=700 tmpfs "$image/$folder"
  done
  exec env -i "$@" /usr/sbin/chroot --userspec=10001:10001 "$image" bash -c "
    cd /var/lib/facestream
    id
    touch /opt/facestream/probe 2>/dev/null && { echo the file system can be written; exit 1; }
    du -sh --apparent-size /opt/facestream
    facestream demo --output demo
    ls demo"
' bash "${settings[@]}"
