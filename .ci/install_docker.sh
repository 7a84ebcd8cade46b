#!/usr/bin/env bash
# Give this Debian machine a docker engine that answers, with compose v2 and buildx.
#
# The engine is Debian's docker.io; its bookworm release has no compose v2 and no buildx, so those two plugins (two
# static Go programs that need libc6 alone) are unpacked from trixie's packages, read through package lists of
# their own: the machine's own sources stay as they are. Whatever is there already is left alone.
set -euo pipefail

plugins=/usr/local/lib/docker/cli-plugins
log=${DOCKERD_LOG:-/var/log/dockerd.log}
export DEBIAN_FRONTEND=noninteractive

say() { echo "install_docker: $*" >&2; }

debian_mirror() { # the mirror that this machine already uses for Debian itself
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Codename: $1" | head -n 1
}

install_engine() {
  apt-get update -qq
  # iptables: dockerd cannot publish a port without it, and docker.io only recommends it.
  apt-get install -y -qq --no-install-recommends docker.io iptables ca-certificates >/dev/null
}

install_plugins() {
  local codename mirror private
  codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mirror=$(debian_mirror "$codename")
  [[ -n $mirror ]] || { apt-get update -qq && mirror=$(debian_mirror "$codename"); }
  [[ -n $mirror ]] || { say "no Debian mirror in this machine's apt sources"; return 1; }
  private=$(mktemp -d)
  mkdir -p "$private/lists/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$private/trixie.list"
  local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$private/trixie.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$private/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
  "${apt[@]}" update
  (cd "$private" && "${apt[@]}" download docker-compose docker-buildx)
  for package in "$private"/*.deb; do dpkg-deb --extract "$package" "$private/root"; done
  install -D -m 0755 -t "$plugins" "$private"/root/usr/libexec/docker/cli-plugins/*
  rm -rf "$private"
}

start_engine() {
  say "starting dockerd, log in $log"
  setsid nohup dockerd </dev/null >"$log" 2>&1 &
  local dockerd=$!
  for _ in {1..120}; do
    docker info >/dev/null 2>&1 && return
    kill -0 "$dockerd" 2>/dev/null || break
    sleep 0.5
  done
  tail -n 20 "$log" >&2
  say "dockerd does not answer"
  return 1
}

main() {
  if ! command -v dockerd >/dev/null && ! docker info >/dev/null 2>&1; then
    [[ $(id -u) == 0 ]] || { say "run as root: the engine has to be installed"; exit 1; }
    install_engine
  fi
  if ! docker compose version >/dev/null 2>&1 || ! docker buildx version >/dev/null 2>&1; then
    install_plugins
  fi
  docker info >/dev/null 2>&1 || start_engine
  say "engine $(docker version --format '{{.Server.Version}}'), compose $(docker compose version --short), buildx $(docker buildx version | cut -d' ' -f2)"
}

main
