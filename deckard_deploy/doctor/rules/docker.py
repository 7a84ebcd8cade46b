"""Rules about docker: installed, permitted, new enough, able to pass a GPU, with an image for this host."""

from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.findings import RuleVerdict, fail, fail_if_needed, ok, rule, version, warn
from deckard_deploy.doctor.rules.gpu import docker_name
from deckard_deploy.doctor.target import Target

OLD_ENGINE = 24
OLDEST_COMPOSE = (2, 20)
INSTALL = "install docker: https://docs.docker.com/engine/install/"
TOOLKIT = (
    "install nvidia-container-toolkit, then: "
    "sudo nvidia-ctk runtime configure && sudo systemctl restart docker"
)


@rule(
    "docker",
    when="fail: not installed, not running, or not for this user (warn: no profile was named)",
    why="every GPU profile runs in a container",
    source="docker info",
    stops_up=True,
)
def docker(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The engine answers."""
    found = facts.docker
    if found is None or target.needs_docker is False:
        return None
    if found.problem is None:
        return ok(f"engine {found.version}")
    fix = "docker info"
    if not found.installed:
        fix = f"{INSTALL}; without it: deckard-deploy up --profile cpu"
    elif "permission denied" in found.problem.lower():
        fix = "sudo usermod -aG docker $USER, then log in again"
    elif "connect to the docker daemon" in found.problem.lower():
        fix = "sudo systemctl start docker"
    return fail_if_needed(target.needs_docker, found.problem, fix)


@rule(
    "docker-version",
    when=f"warn: below {OLD_ENGINE}",
    why="Spark images and their instructions were made with 24 and newer; older engines are not maintained",
    source="github AEON-7/vllm-ultimate-dgx-spark README",
)
def docker_version(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The engine is maintained."""
    if facts.docker is None or target.needs_docker is False:
        return None
    found = facts.docker.version
    if found is None or not version(found):
        return None
    if version(found)[0] < OLD_ENGINE:
        return warn(f"{found} is old", INSTALL)
    return ok(found)


@rule(
    "compose",
    when="fail: no compose plugin, or below 2.20 (warn: no profile was named)",
    why="releases are compose files, and this tool refuses older ones",
    source="docker compose version --short; compose's own documentation covers no older one",
    stops_up=True,
)
def compose(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The compose plugin is installed, which docker-compose does not replace."""
    if facts.docker is None or not facts.docker.installed or target.needs_docker is False:
        return None
    found = facts.docker.compose
    fix = "sudo apt-get install docker-compose-plugin"
    if found is None:
        return fail_if_needed(target.needs_docker, "docker has no compose plugin", fix)
    if version(found)[:2] < OLDEST_COMPOSE:
        return fail_if_needed(target.needs_docker, f"{found} is old", fix)
    return ok(found)


@rule(
    "gpu-runtime",
    when="fail: docker has neither an nvidia runtime nor a CDI specification (warn: no profile was named)",
    why='docker then refuses: could not select device driver "nvidia" with capabilities: [[gpu]]',
    source="docker 20.10's words; docs.nvidia.com/datacenter/cloud-native/container-toolkit (both ways)",
    stops_up=True,
)
def gpu_runtime(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """A container can use the GPU. Skipped if the engine does not answer, or the machine has no GPU."""
    if facts.docker is None or facts.docker.problem or target.needs_gpu is False:
        return None
    if not facts.gpus and target.needs_gpu is None:
        return None
    if any("nvidia" in name for name in facts.docker.runtimes):  # guard: F37
        return ok("nvidia runtime")
    if facts.cdi_specs:
        return ok(f"CDI: {', '.join(facts.cdi_specs)}")
    runtimes = ", ".join(facts.docker.runtimes) or "none"
    return fail_if_needed(target.needs_gpu, f"docker's runtimes are {runtimes}", TOOLKIT)


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
