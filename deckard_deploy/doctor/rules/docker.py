"""Rules about docker: installed, permitted, new enough, able to pass a GPU, with an image for this host."""

from deckard_deploy.doctor.facts import Docker, HostFacts
from deckard_deploy.doctor.findings import RuleVerdict, fail, fail_if_needed, info, ok, rule, warn
from deckard_deploy.doctor.rules.gpu import docker_name
from deckard_deploy.doctor.target import Target
from deckard_deploy.system.versions import version_numbers

OLD_ENGINE = 24
OLDEST_COMPOSE = (2, 20)
FIRST_WITH_CDI_GPUS = 29
INSTALL = "install docker: https://docs.docker.com/engine/install/"
TOOLKIT = (
    "install nvidia-container-toolkit, then: "
    "sudo nvidia-ctk runtime configure && sudo systemctl restart docker (which ends running containers)"
)
OWN_ENGINE = "sudo systemctl start docker, then: docker context use default; unset DOCKER_HOST DOCKER_CONTEXT"
# The products that are not docker's own engine, what they cannot do here, and what to do.
_PRODUCTS = {
    "podman": (
        "is podman, and docker is needed: networks and name resolution differ",
        f"{INSTALL}; remove podman-docker, or unset DOCKER_HOST",
    ),
    "docker from snap": (
        "is docker from snap, which sees no hidden folder of a home and no NVIDIA runtime of the host",
        f"sudo snap remove docker (its containers and images go with it), then {INSTALL}",
    ),
    "Docker Desktop": (
        "is Docker Desktop, whose virtual machine has no NVIDIA GPU and not this host's network",
        f"use the host's own engine: {OWN_ENGINE}",
    ),
}
# The messages of docker's command line, and what mends each. The first match counts.
_PROBLEMS = (
    ("permission denied", "sudo usermod -aG docker $USER, then log in again"),
    (
        "api version",  # docker 29: client version 1.41 is too old. Minimum supported API version is 1.44
        "the docker command and the engine are of different ages: upgrade the older: docker version",
    ),
    ("did not answer within", "sudo journalctl -u docker -n 50"),
    ("context", "docker context ls, then: docker context use default"),
)
# Docker up to 28, and docker 29 (cockpit-dockermanager issue 37).
_DAEMON_DOWN = ("connect to the docker daemon", "connect to the docker api", "error during connect")


@rule(
    "docker",
    when="fail: not installed, not running, not for this user, on another machine, or not docker's own engine: "
    "podman, docker from snap, Docker Desktop (warn: no profile was named, or Docker Desktop on WSL)",
    why="every GPU profile runs in a container of docker's own engine on this system",
    source="docker info; containers/podman pkg/api/handlers/compat/info.go; canonical/docker-snap issues 31 and 189; "
    "docs.docker.com/desktop/features/gpu (only with WSL 2)",
    stops_up=True,
)
def docker(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The engine of this machine answers."""
    found = facts.docker
    if found is None or target.needs_docker is False:
        return None
    if found.product is not None:
        return _judge_product(found, facts, target)
    elsewhere = _elsewhere(found, facts)
    if elsewhere:
        return fail_if_needed(
            target.needs_docker, elsewhere, f"run deckard-deploy on that machine, or here: {OWN_ENGINE}"
        )
    if found.problem is None:
        return ok(f"engine {found.version}")
    return fail_if_needed(target.needs_docker, found.problem, _problem_fix(found, found.problem))


def _judge_product(found: Docker, facts: HostFacts, target: Target) -> RuleVerdict:
    problem, fix = _PRODUCTS[str(found.product)]
    what = f"`docker` {problem}"
    if found.version:
        what = f"`docker` {found.version} {problem}"
    if found.product == "Docker Desktop" and facts.wsl:
        return warn(
            f"`docker` {found.version or ''} is Docker Desktop on WSL, which this project has not run",
            f"the engine inside WSL: {INSTALL}",
        )
    return fail_if_needed(target.needs_docker, what, fix)


def _elsewhere(found: Docker, facts: HostFacts) -> str | None:
    """Return the reason why the engine is not on this machine, if it is not."""
    named_by = f" (by {found.named_by})" if found.named_by else ""
    if found.endpoint not in (None, "unix"):
        return f"docker talks to another machine over {found.endpoint}{named_by}, which has not these weights"
    if found.kernel and facts.kernel and found.kernel != facts.kernel:
        return (
            f"docker runs in a virtual machine or on another machine{named_by}: "
            f"its kernel is {found.kernel}, this one {facts.kernel}"
        )
    return None


def _problem_fix(found: Docker, problem: str) -> str:
    if not found.installed:
        return f"{INSTALL}; without it: deckard-deploy up --profile cpu"
    words = problem.lower()
    down = any(each in words for each in _DAEMON_DOWN)
    if down and found.named_by:
        return f"{found.named_by} names an engine that does not answer; the host's own: {OWN_ENGINE}"
    if down and "permission denied" not in words:
        return "sudo systemctl start docker"
    for each, fix in _PROBLEMS:
        if each in words:
            return fix
    return "docker info"


def _is_usable(facts: HostFacts, target: Target) -> bool:
    """Return False if another finding makes the engine's details meaningless."""
    found = facts.docker
    if found is None or target.needs_docker is False:
        return False
    return found.product != "podman" and _elsewhere(found, facts) is None


@rule(
    "docker-version",
    when=f"warn: below {OLD_ENGINE}",
    why="Spark images and their instructions were made with 24 and newer; older engines are not maintained",
    source="github AEON-7/vllm-ultimate-dgx-spark README",
)
def docker_version(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The engine is maintained."""
    if facts.docker is None or not _is_usable(facts, target):
        return None
    found = facts.docker.version
    if found is None or not version_numbers(found):
        return None
    if version_numbers(found)[0] < OLD_ENGINE:
        return warn(f"{found} is old", "upgrade docker: https://docs.docker.com/engine/install/")
    return ok(found)


@rule(
    "docker-users",
    when="warn: the engine is rootless, or maps users (userns-remap)",
    why="root of a container is then another user of the host: GPUs need no-cgroups, and files of mode 0600 are not "
    "readable; a rootless engine ends with the user's last session",
    source="docs.nvidia.com/datacenter/cloud-native/container-toolkit, rootless mode; docs.docker.com/engine/security",
)
def docker_users(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """Root of a container is root of the host, as everywhere in this tool's documentation."""
    if facts.docker is None or facts.docker.problem or not _is_usable(facts, target):
        return None
    if facts.docker.rootless:
        return warn(
            "rootless: root of a container is you",
            "sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place; sudo loginctl enable-linger "
            "$USER; or the system's engine: docker context use default",
        )
    if "userns" in facts.docker.security:
        return warn(
            "userns-remap: root of a container is a user without rights here",
            'take "userns-remap" out of /etc/docker/daemon.json, then: sudo systemctl restart docker (which ends '
            "running containers)",
        )
    return ok("root of a container is root")


@rule(
    "selinux",
    when="warn: docker labels its containers for SELinux",
    why="a container may then read no folder of the host that has no label for it: permission denied on the weights",
    source="docs.docker.com/engine/storage/bind-mounts, SELinux label; this tool sets no label",
)
def selinux(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """SELinux does not keep the container from the weights."""
    if facts.docker is None or facts.docker.problem or not _is_usable(facts, target):
        return None
    if "selinux" in facts.docker.security:
        return warn(
            "docker labels its containers", f"sudo chcon -R -t container_file_t {target.folders.weights}"
        )
    return ok("not in use by docker")


@rule(
    "live-restore",
    when="info: a restart or an upgrade of docker ends the containers",
    why="an automatic upgrade of docker then stops the endpoint, and loading takes minutes again",
    source="docs.docker.com/engine/daemon/live-restore",
)
def live_restore(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """Containers live on while docker restarts."""
    if facts.docker is None or facts.docker.live_restore is None or not target.needs_docker:
        return None
    if facts.docker.live_restore:
        return ok("on")
    return info(
        "off", 'add "live-restore": true to /etc/docker/daemon.json, then: sudo systemctl reload docker'
    )


@rule(
    "compose",
    when="fail: no compose plugin, or below 2.20 (warn: no profile was named)",
    why="releases are compose files, and this tool refuses older ones",
    source="docker compose version --short; compose's own documentation covers no older one",
    stops_up=True,
)
def compose(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The compose plugin is installed, which docker-compose does not replace."""
    if facts.docker is None or not facts.docker.installed or not _is_usable(facts, target):
        return None
    found = facts.docker.compose
    fix = "sudo apt-get install docker-compose-plugin"
    if found is None:
        return fail_if_needed(target.needs_docker, "docker has no compose plugin", fix)
    if version_numbers(found)[:2] < OLDEST_COMPOSE:
        return fail_if_needed(target.needs_docker, f"{found} is old", fix)
    return ok(found)


@rule(
    "gpu-runtime",
    when="fail: docker has neither an nvidia runtime nor CDI with a specification (warn: no profile was named)",
    why='docker then refuses: could not select device driver "nvidia" with capabilities: [[gpu]]',
    source="docker 20.10's words; docs.nvidia.com/datacenter/cloud-native/container-toolkit (both ways); "
    "moby/moby pull request 50228 and NixOS/nixpkgs issue 305312 (CDI alone)",
    stops_up=True,
)
def gpu_runtime(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """A container can use the GPU. Skipped if the engine does not answer, or the machine has no GPU."""
    found = facts.docker
    if found is None or found.problem or target.needs_gpu is False or not _is_usable(facts, target):
        return None
    if (not facts.gpus and target.needs_gpu is None) or found.product == "Docker Desktop":
        return None
    if any("nvidia" in name for name in found.runtimes):  # guard: F37
        return ok("nvidia runtime")
    specifications = ", ".join(facts.cdi_specs or found.cdi_devices)
    if not specifications:
        runtimes = ", ".join(found.runtimes) or "none"
        return fail_if_needed(target.needs_gpu, f"docker's runtimes are {runtimes}", TOOLKIT)
    # A plan then reserves by `driver: cdi`, which an engine serves whose CDI is on (system/docker_info.py).
    if found.cdi or version_numbers(found.version)[:1] >= (FIRST_WITH_CDI_GPUS,):
        return ok(f"CDI: {specifications}")
    return fail_if_needed(
        target.needs_gpu, f"only CDI ({specifications}), which is off in docker {found.version}", TOOLKIT
    )


@rule(
    "image-platform",
    when="fail: the image here is for another architecture than the host",
    why="it ends in: exec format error",
    source="docker image inspect",
    stops_up=True,
)
def image_platform(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The image on this host is for its architecture. Other images are pulled for the profile's platform."""
    image, host = facts.image, docker_name(facts.architecture)
    if image is None or image.reference != target.image or image.architecture is None or host is None:
        return None
    if image.architecture == host:  # guard: F52
        return ok(image.architecture)
    return fail(
        f"{image.reference} is for {image.architecture}, this host is {host}",
        f"docker pull --platform linux/{host} {image.reference}",
    )
