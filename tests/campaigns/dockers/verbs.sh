#!/bin/bash
# up, chat, the isolation probe with its control, watch, keys, a change, rollback, another docker, down: one line each.
#   verbs.sh FOLDER         DOCKER_HOST, ENGINE_IMAGE and GATEWAY_IMAGE are set; with PROMETHEUS_IMAGE and GRAFANA_IMAGE (any
#                           program that waits) also `monitor up` and `monitor up --all`
set -u
folder=$1 port=${PORT:-8480} failed=0
cd "$(dirname "$0")/../../.." || exit 1
tool="${PYTHON:-.venv/bin/python} -m deckard_deploy"
export DECKARD_HOME=$folder/state
choice="--profile cpu --engine vllm-0.19.1-cpu-docker --image $ENGINE_IMAGE --name matrix
    --set gateway_image=$GATEWAY_IMAGE --port $port"
url=http://127.0.0.1:$port/v1/models

try() {
    local what=$1
    shift
    if "$@" >"$folder/$what.log" 2>&1; then
        echo "ok    $what"
    else
        echo "FAIL  $what"
        tail -4 "$folder/$what.log"
        failed=1
    fi
}
status_of() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
is_ready() { $tool status --name matrix | grep -q 'answers.*ready'; }
watched() { timeout -s INT "$1" $tool watch --name matrix --interval 3 2>&1 | tee /dev/stderr | grep -q healthy; }

# Port 8999 of all addresses of this network namespace: the engine must reach none, a container on an ordinary network must.
python3 -c 'import socket
s = socket.create_server(("0.0.0.0", 8999))
while True: s.accept()[0].close()' &
listener=$!
isolated() {
    docker exec -i deckard-matrix python3 - <<'P'
import socket
def reaches(host, port):
    with socket.socket() as s:
        s.settimeout(2)
        try:
            s.connect((host, port))
        except OSError as error:
            print(host, port, error)
            return False
        return True
own = socket.gethostbyname(socket.gethostname())
assert reaches("gateway", 8080)
assert not reaches(own.rsplit(".", 1)[0] + ".1", 8999)
assert not reaches("172.17.0.1", 8999)
try:
    print(socket.gethostbyname("deb.debian.org"))
except OSError as error:
    print(error)
else:
    raise AssertionError("the engine resolves names of other networks")
P
}
ordinary_reaches() {
    docker run --rm --entrypoint python3 "$ENGINE_IMAGE" -c 'import socket, struct
routes = [line.split() for line in open("/proc/net/route")][1:]
host = next(words[2] for words in routes if words[1] == "00000000")
socket.create_connection((socket.inet_ntoa(struct.pack("<L", int(host, 16))), 8999), 2)'
}
keys() {
    local key
    key=$($tool keys add alice)
    [ "$(status_of "$url")" = 401 ] && [ "$(status_of -H "Authorization: Bearer $key" "$url")" = 200 ]
}
killed() {
    docker kill --signal KILL deckard-matrix
    sleep 2
    watched 25
    is_ready
}
up_after_kill() {
    docker kill --signal KILL deckard-matrix && $tool up $choice && is_ready || return 1
    docker rm --force deckard-matrix && $tool up $choice && is_ready
}
other_status() { DOCKER_HOST=unix:///var/run/docker.sock is_ready; }
other_up() {
    DOCKER_HOST=unix:///var/run/docker.sock $tool up $choice 2>&1 | grep 'was started by the docker daemon at'
}
scraped() {
    curl -s --get --data-urlencode 'query=sum(up) == 2' "http://127.0.0.1:$prometheus/api/v1/query" | grep -q '"value"'
}
monitored() {
    prometheus=$((port + 1))
    $tool monitor up "$@" --prometheus-port $prometheus --grafana-port $((port + 2)) \
        --prometheus-image "$PROMETHEUS_IMAGE" --grafana-image "$GRAFANA_IMAGE" || return 1
    local result=1
    for _ in $(seq 60); do
        scraped && result=0 && break
        sleep 1
    done
    $tool monitor down "$@" && return $result
}
all_refused() { $tool monitor up --all 2>&1 | grep "a rootless docker has no access to this host's network"; }
nothing_left() {
    [ -z "$(docker ps --all --quiet --filter label=deckard.deployment=matrix)" ] &&
        [ -z "$(docker network ls --quiet --filter label=com.docker.compose.project=deckard-matrix)" ]
}

try up $tool up $choice
try chat $tool chat --name matrix hello
try isolated isolated
try control-ordinary-container-reaches-host ordinary_reaches
kill $listener
try watch watched 14
try status is_ready
try keys keys
if [ -n "${PROMETHEUS_IMAGE:-}" ]; then
    try monitor monitored --name matrix
    if docker info --format '{{.SecurityOptions}}' | grep -q rootless; then
        try monitor-all-refused all_refused
    else
        try monitor-all monitored --all
    fi
fi
try change $tool up $choice --set max-num-seqs=2
try rollback $tool rollback --name matrix
try watch-starts-a-killed-engine killed
try up-starts-a-killed-and-a-removed-engine up_after_kill
if [ "$DOCKER_HOST" != unix:///var/run/docker.sock ]; then
    try other-docker-selected-status other_status
    try other-docker-selected-up-refused other_up
fi
try down $tool down --name matrix
try nothing-left nothing_left
exit $failed
