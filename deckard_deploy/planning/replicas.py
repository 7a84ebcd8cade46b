"""Replicas: equal engines of one machine, each with GPUs, caches and a port of its own, behind one front.

A replica is an ordinary deployment, NAME-1 to NAME-N. The front is nginx alone and has the deployment's own name.
"""

import json
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from deckard_deploy.catalog.resolution import Resolved, most_gpus
from deckard_deploy.catalog.specs import Container, Publish, rank_count
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.gateway import REPLICAS_FOLDER
from deckard_deploy.planning.plan import BindMount, LaunchPlan
from deckard_deploy.planning.planner import VISIBLE_GPUS, parse_gpu_ids

MAX_PORT = 65535
# What a user asks of the front, so that another wish for it is not one for the engines.
_OF_THE_FRONT = ("name", "publish", "replicas", "gateway_image")


class Share(NamedTuple):
    """A replica's part of the machine. number: from 1. gpus: empty for engines without GPUs."""

    number: int
    gpus: tuple[str, ...]


def replica_name(name: str, number: int) -> str:
    """Return the name of a replica's deployment."""
    return f"{name}-{number}"


def shares(resolved: Resolved, here: int | None = None) -> tuple[Share, ...]:
    """Return the parts of the machine, by the GPUs that CUDA_VISIBLE_DEVICES names, or all from 0 on.

    here: the GPUs of this machine; None: not known, or another machine. Raises BadInputError for more replicas than
    GPUs, and for `all` without a known number of GPUs.
    """
    ranks = rank_count(resolved.serve)
    chosen = _chosen_gpus(resolved)
    if not resolved.engine.gpu:
        return tuple(Share(number, ()) for number in range(1, _fixed_count(resolved) + 1))
    available = len(chosen) if chosen else here or most_gpus(resolved.profile)
    count = _fixed_count(resolved)
    if resolved.replicas == "all":
        if available is None:
            raise BadInputError(
                f"--replicas all: the number of GPUs of a machine of {resolved.profile.name} is not known",
                hint="a number: --replicas 2",
            )
        count = max(1, available // ranks)
    if available is not None and count * ranks > available:
        where = f"{VISIBLE_GPUS} names" if chosen else "this machine has"
        raise BadInputError(
            f"--replicas {resolved.replicas} with {ranks} GPU each needs {count * ranks}, and {where} {available}",
            hint="nvidia-smi -L",
        )
    ids = chosen or tuple(map(str, range(count * ranks)))
    return tuple(Share(at + 1, ids[at * ranks : (at + 1) * ranks]) for at in range(count))


def replica_choice(resolved: Resolved, share: Share, *, port: int | None = None) -> Resolved:
    """Return the choice of one replica, which only this machine reaches. port: default: the front's and its number.

    Raises BadInputError for a port beyond the last one.
    """
    port = port or resolved.publish.port + share.number
    if port > MAX_PORT:
        raise BadInputError(
            f"replica {share.number} would listen on port {port}",
            hint=f"--port {MAX_PORT - 100}, or a lower one",
        )
    environment = dict(resolved.environment)
    if share.gpus:
        environment[VISIBLE_GPUS] = ",".join(share.gpus)
    asked = json.loads(resolved.asked or "{}")
    for name in _OF_THE_FRONT:
        asked.get("deployment", {}).pop(name, None)
    return replace(
        resolved,
        name=replica_name(resolved.name, share.number),
        environment=environment,
        publish=Publish(port=port),
        gateway="nginx",
        replicas=None,
        role="replica",
        asked=json.dumps(asked, sort_keys=True),
    )


def as_front(plan: LaunchPlan, sockets: PurePosixPath | None = None) -> LaunchPlan:
    """Return the plan of nginx alone, from the plan of an engine with the user's address and gateway.

    Nothing of the engine is in it, so that another engine behind it does not restart it. sockets: the host's folder
    with those of replicas in containers.
    """
    mounts: tuple[BindMount, ...] = ()
    if sockets and plan.runtime == "docker":
        mounts = (BindMount(source=str(sockets), target=REPLICAS_FOLDER),)
    pooling: tuple[str, ...] = ()
    if plan.task != "generate":  # for the front's routes
        pooling = ("--runner", "pooling", "--convert", plan.option("convert") or "embed")
    changes: dict[str, Any] = {
        "role": "front",
        "model": plan.served_name,
        "engine": "nginx",
        "vllm_version": "",
        "image": None,
        "platform": None,
        "entrypoint": (),
        "arguments": ("--served-model-name", plan.served_name, *pooling),
        "environment": {},
        "mounts": mounts,
        "scratch": (),
        "user": None,
        "patches": (),
        "plugin": None,
        "request_filter": None,
        "gpus": None,
        "container": Container(restart="unless-stopped"),
        "healthcheck": None,
        "given_up": (),
        "startup_timeout_s": 60,
    }
    return plan.model_copy(update=changes)


def _fixed_count(resolved: Resolved) -> int:
    return resolved.replicas if isinstance(resolved.replicas, int) else 1


def _chosen_gpus(resolved: Resolved) -> tuple[str, ...]:
    """Return the GPUs that the user names. Raises BadInputError for other values."""
    chosen = resolved.environment.get(VISIBLE_GPUS)
    return parse_gpu_ids(chosen, rank_count(resolved.serve)) if chosen is not None else ()
