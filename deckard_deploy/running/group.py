"""The replicas behind a front: how many there are, and which of them get requests.

nginx's list of replicas does not change. Each entry is a link to a replica's socket, which exists as long as the
replica may get requests: without it nginx cannot connect, has sent nothing, and takes the next one.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from deckard_deploy.errors import IntegrityError
from deckard_deploy.planning.gateway import REPLICAS_FOLDER, SOCKET
from deckard_deploy.planning.replicas import replica_name
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.system.files import (
    link_atomically,
    private_folder,
    read_regular,
    translating_write_errors,
    write_atomically,
)


class GroupRecord(BaseModel):
    """The content of group.json. count: of the replicas that have a deployment, from 1 on."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    count: int


def read(front: DeploymentDir) -> GroupRecord | None:
    """Return the record of a front, None for another deployment. Raises IntegrityError."""
    try:
        return GroupRecord.model_validate_json(read_regular(front.group))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise IntegrityError(
            f"{front.group} is damaged", hint=f"""write it again: echo '{{"count": N}}' > {front.group}"""
        ) from error


def record(front: DeploymentDir, count: int) -> None:
    """Write the record of a front."""
    write_atomically(front.group, GroupRecord(count=count).model_dump_json() + "\n")


def server(number: int, *, in_container: bool) -> str:
    """Return the address of a replica in nginx's list; of processes relative to the front's folder."""
    return f"unix:{REPLICAS_FOLDER if in_container else 'replicas'}/{number}.sock"


def put_in(front: DeploymentDir, number: int, *, in_container: bool) -> None:
    """Let a replica have requests from now on. in_container: it runs in one, and its socket is in a shared folder."""
    private_folder(front.members)
    socket = f"../../{replica_name(front.name, number)}/{SOCKET}"
    if in_container:
        socket = f"{number}/{SOCKET}"
    link_atomically(front.members / f"{number}.sock", socket)


def socket_folder(front: DeploymentDir, number: int) -> Path:
    """Return the folder with the socket of a replica in a container, which the containers of both mount."""
    return front.members / str(number)


def share_sockets(front: DeploymentDir, count: int) -> None:
    """Create the folders of sockets of replicas in containers, for all users: the folder of the front is private."""
    private_folder(front.members)
    for folder in (front.members, *(socket_folder(front, number) for number in range(1, count + 1))):
        with translating_write_errors(folder):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755 if folder == front.members else 0o1777)


def take_out(front: DeploymentDir, number: int) -> None:
    """Give a replica no new request from now on; those that it has go on."""
    (front.members / f"{number}.sock").unlink(missing_ok=True)


def members(front: DeploymentDir) -> set[int]:
    """Return the numbers of the replicas that may get requests."""
    if not front.members.is_dir():
        return set()
    return {int(link.stem) for link in front.members.glob("*.sock") if link.stem.isdecimal()}
