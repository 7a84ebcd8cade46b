"""The connection to docker: the SDK reads its state, compose changes it, and both use the same socket.

Only docker's own command line knows which daemon is selected (DOCKER_HOST, DOCKER_CONTEXT, the current
context). It is asked once for the socket.
"""

import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess

import requests
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.failures.matching import find_in_message
from deckard_deploy.system import docker_info
from deckard_deploy.system.commands import Say, last_output_line, run

CALL_TIMEOUT_S = 30.0  # on a machine that was short of memory or read gigabytes, calls took more than ten
# For `--pull never`, and `down` of a project without a file. 2.20 (2023) is the oldest in compose's own docs.
OLDEST_COMPOSE = (2, 20)
# Variables that docker inherits. COMPOSE_* would select another file, project or profile.
_INHERITED = re.compile(r"PATH|HOME|USER|LANG|XDG_.*|DOCKER_(?!HOST|CONTEXT|TLS).*")

_UNSUPPORTED = {
    # podman 4.3.1: its API drops com.docker.network.bridge.inhibit_ipv4, and the container then reaches the host.
    "podman": "whose networks do not keep the engine from this host",
    # canonical/docker-snap: the snap reads no file outside of HOME.
    "docker from snap": "which cannot mount folders outside of the home directory",
    "Docker Desktop": "whose virtual machine has neither this host's GPU nor its memory",
}


class DockerClient:
    """The docker daemon that the caller's docker command would use. Connects at the first question."""

    def __init__(self, *, environment: Mapping[str, str], say: Say) -> None:
        self._caller = dict(environment)
        self._say = say

    @cached_property
    def endpoint(self) -> str:
        """The daemon's socket, `unix://…`.

        Raises EnvironmentUnfitError: no docker, no such context, a daemon on another machine.
        """
        done = run(
            ("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"),
            environment=self._caller,
            say=self._say,
            timeout_s=CALL_TIMEOUT_S,
        )
        if done.returncode:
            raise EnvironmentUnfitError(f"docker: {last_output_line(done.stderr)}", hint="docker context ls")
        endpoint = done.stdout.strip()
        if not endpoint.startswith("unix://"):  # guard: F36
            raise EnvironmentUnfitError(
                f"docker talks to {endpoint}; the weights on this machine cannot be mounted there",
                hint="run deckard-deploy on that machine, or: unset DOCKER_HOST; docker context use default",
            )
        return endpoint

    @cached_property
    def api(self) -> APIClient:
        """The SDK's client. Raises EnvironmentUnfitError if the daemon does not answer."""
        return self.connect()

    def close(self) -> None:
        """Close the client's connections. The next question opens them again."""
        if "api" in self.__dict__:  # cached_property stores it there
            self.__dict__.pop("api").close()

    def connect(self) -> APIClient:
        """Return a new client, for a thread of its own."""
        self._require_daemon()
        with self.translating_errors():
            return APIClient(
                base_url=self.endpoint,
                timeout=int(CALL_TIMEOUT_S),  # guard: F35
                version="auto",
            )

    def require_supported(self) -> None:
        """Raise EnvironmentUnfitError, by its name, for an engine that is not docker's own."""
        info = self._info()
        program = shutil.which("docker", path=self._caller.get("PATH", "")) or ""
        found = docker_info.product(info, endpoint=self.endpoint, program=program)
        name = f"{found} {info.get('ServerVersion') or ''}".strip()
        if found:  # guard: F67
            raise EnvironmentUnfitError(
                f"`docker` is {name}, {_UNSUPPORTED[found]}",
                hint="docker's own engine: https://docs.docker.com/engine/install/",
            )

    def is_rootless(self) -> bool:
        """Return True if root in a container is the daemon's own user. Raises EnvironmentUnfitError."""
        return docker_info.is_rootless(self._info())

    def _info(self) -> docker_info.Info:
        with self.translating_errors():
            info: docker_info.Info = self.api.info()
        return info

    @cached_property
    def compose_version(self) -> str:
        """The version of compose. Raises EnvironmentUnfitError if compose is missing or too old."""
        done = self.command("compose", "version", "--short", timeout_s=CALL_TIMEOUT_S, check=False)
        version = done.stdout.strip().removeprefix("v")
        parts = re.match(r"(\d+)\.(\d+)", version)
        if done.returncode or not parts:
            message = "docker has no compose plugin"
            compose_one = shutil.which("docker-compose", path=self._caller.get("PATH", ""))
            if compose_one:
                message += f"; {compose_one} is not the plugin that is meant"
            raise EnvironmentUnfitError(
                message, hint="install it: sudo apt-get install docker-compose-plugin"
            )
        if (int(parts[1]), int(parts[2])) < OLDEST_COMPOSE:  # guard: F53
            raise EnvironmentUnfitError(
                f"docker compose {version} is too old, {'.'.join(map(str, OLDEST_COMPOSE))} is needed",
                hint="sudo apt-get install docker-compose-plugin",
            )
        return version

    def compose(
        self,
        project: str,
        file: Path | None,
        arguments: Sequence[str],
        *,
        timeout_s: float,
        folder: Path | None = None,
    ) -> None:
        """Run `docker compose` in a project.

        folder: what the file's relative paths start from; default: the file's own.
        Raises EnvironmentUnfitError with its last line of output.
        """
        if not self.compose_version:
            raise EnvironmentUnfitError(
                "docker compose does not say which version it is", hint="docker compose version"
            )
        words = ["compose", "--project-name", project]
        if file:  # without a file, compose finds the project's containers by their labels
            words += ["--file", str(file)]
        if folder:
            words += ["--project-directory", str(folder)]
        self.command(*words, *arguments, timeout_s=timeout_s)

    def command(self, *arguments: str, timeout_s: float, check: bool = True) -> CompletedProcess[str]:
        """Run `docker …` on this daemon. Raises EnvironmentUnfitError if it fails and `check` is set."""
        inherited = {name: value for name, value in self._caller.items() if _INHERITED.fullmatch(name)}
        done = run(
            ("docker", *arguments),
            environment={**inherited, "DOCKER_HOST": self.endpoint},
            say=self._say,
            timeout_s=timeout_s,
        )
        if check and done.returncode:
            raise error_from_message(done.stderr)
        return done

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Turn the SDK's errors into EnvironmentUnfitError, except NotFound, which is an answer."""
        try:
            yield
        except NotFound:
            raise
        except APIError as error:
            raise error_from_message(str(error.explanation)) from error
        except (DockerException, requests.RequestException) as error:
            if isinstance(error, requests.Timeout) or isinstance(error.__cause__, requests.Timeout):
                raise EnvironmentUnfitError(
                    f"the docker daemon at {self.endpoint} did not answer within {CALL_TIMEOUT_S:g} s",
                    hint="sudo systemctl restart docker",
                ) from error
            # guard: F33
            self._require_daemon()  # it may have gone since the last question
            raise error_from_message(str(error)) from error

    def _require_daemon(self) -> None:
        """Raise EnvironmentUnfitError if nothing listens on the socket, or the user may not connect to it."""
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(CALL_TIMEOUT_S)
                probe.connect(self.endpoint.removeprefix("unix://"))
        except PermissionError as error:
            raise EnvironmentUnfitError(
                f"no permission to talk to the docker daemon at {self.endpoint}",
                hint="sudo usermod -aG docker $USER, then log in again",
            ) from error
        except OSError as error:
            raise EnvironmentUnfitError(
                f"the docker daemon at {self.endpoint} is not running ({error.strerror or error})",
                hint="sudo systemctl start docker",
            ) from error


def error_from_message(message: str) -> EnvironmentUnfitError:
    """Return the error for a message of docker, with the fix of a known failure. message: all of its lines."""
    found = find_in_message(message)
    if found is None:
        return EnvironmentUnfitError(f"docker: {_last_line(message)}", hint="docker info")
    return EnvironmentUnfitError(f"docker: {_last_line(message)}", hint=f"{found.cause}; {found.fix}")


def _last_line(message: str) -> str:
    return last_output_line(message).removeprefix("Error response from daemon: ")
