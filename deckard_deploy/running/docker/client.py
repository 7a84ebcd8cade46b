"""One docker engine, reached by two doors that cannot disagree: the SDK for looking, compose for doing.

Which engine is meant only docker's own command line knows (DOCKER_HOST, DOCKER_CONTEXT, the current context). It is
asked once, and both doors are then given that same socket.
"""

import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.system.commands import Say, last_line, run

if TYPE_CHECKING:
    from docker import APIClient

CALL_TIMEOUT_S = 30.0  # a machine that is short of memory or reads gigabytes has taken more than ten
# --pull never and project-wide `down` without a file; 2.20 (2023) is the oldest that compose's own docs still cover.
OLDEST_COMPOSE = (2, 20)
# Not COMPOSE_*, which would choose another file, project or profile.
_PASSED = re.compile(r"PATH|HOME|USER|LANG|XDG_.*|DOCKER_(?!HOST|CONTEXT|TLS).*")

# Words of docker 20.10 and compose 2.26, and what to do about them.
_HINTS = (
    (
        "could not select device driver",
        "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure",
    ),
    ("Unknown runtime", "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure"),
    ("address already in use", "choose another port with --port"),
    ("port is already allocated", "choose another port with --port"),
    ("is already in use by container", "remove that container if it is yours: docker rm -f NAME"),
    ("No such image", "pull the image first: docker pull IMAGE"),
    (
        "bind source path does not exist",
        "a file that the plan mounts is missing; run `deckard-deploy up` again",
    ),
    ("no space left on device", "free space where docker keeps its data: docker system df"),
    ("permission denied while trying to connect", "sudo usermod -aG docker $USER, then log in again"),
    ("Cannot connect to the Docker daemon", "sudo systemctl start docker"),
)


class DockerEngine:
    """The engine that the caller's docker command would talk to. Nothing is contacted before the first question."""

    def __init__(self, *, environment: Mapping[str, str], say: Say) -> None:
        self._caller = dict(environment)
        self._say = say

    @cached_property
    def endpoint(self) -> str:
        """`unix://…`. Raises EnvironmentUnfitError: no docker, no such context, an engine on another machine."""
        asked = run(
            ("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"),
            environment=self._caller,
            say=self._say,
            timeout_s=CALL_TIMEOUT_S,
        )
        if asked.returncode:
            raise EnvironmentUnfitError(f"docker: {last_line(asked.stderr)}", hint="docker context ls")
        endpoint = asked.stdout.strip()
        if not endpoint.startswith("unix://"):  # guard: F36
            raise EnvironmentUnfitError(
                f"docker talks to {endpoint}; the weights on this machine cannot be mounted there",
                hint="run deckard-deploy on that machine, or: unset DOCKER_HOST; docker context use default",
            )
        return endpoint

    @cached_property
    def api(self) -> "APIClient":
        """The SDK's client. Raises EnvironmentUnfitError when the daemon does not answer."""
        return self.connect()

    def close(self) -> None:
        """Close the client's connections; the next question opens them again."""
        if "api" in self.__dict__:  # where cached_property keeps it
            self.__dict__.pop("api").close()

    def connect(self) -> "APIClient":
        """A client of its own, for a thread."""
        import docker  # noqa: PLC0415  half a second

        self._require_daemon()
        with self.asking():
            return docker.APIClient(
                base_url=self.endpoint,
                timeout=int(CALL_TIMEOUT_S),  # guard: F35
                version="auto",
            )

    @cached_property
    def compose_version(self) -> str:
        """Raises EnvironmentUnfitError when compose is missing or too old."""
        asked = self.command("compose", "version", "--short", timeout_s=CALL_TIMEOUT_S, check=False)
        version = asked.stdout.strip().removeprefix("v")
        parts = re.match(r"(\d+)\.(\d+)", version)
        if asked.returncode or not parts:
            old = shutil.which("docker-compose", path=self._caller.get("PATH", ""))
            found = f"; {old} is not the plugin that is meant" if old else ""
            raise EnvironmentUnfitError(
                f"docker has no compose plugin{found}",
                hint="install it: sudo apt-get install docker-compose-plugin",
            )
        if (int(parts[1]), int(parts[2])) < OLDEST_COMPOSE:  # guard: F53
            raise EnvironmentUnfitError(
                f"docker compose {version} is too old, {'.'.join(map(str, OLDEST_COMPOSE))} is needed",
                hint="sudo apt-get install docker-compose-plugin",
            )
        return version

    def compose(self, project: str, file: Path | None, arguments: Sequence[str], *, timeout_s: float) -> None:
        """`docker compose` in a project. Raises EnvironmentUnfitError with docker's own last words."""
        if not self.compose_version:
            raise EnvironmentUnfitError(
                "docker compose does not say which version it is", hint="docker compose version"
            )
        # Without a file compose goes by the labels of what exists; it would take one it found beside or above it.
        named = ("--file", str(file)) if file else ()
        self.command("compose", "--project-name", project, *named, *arguments, timeout_s=timeout_s)

    def command(self, *arguments: str, timeout_s: float, check: bool = True) -> CompletedProcess[str]:
        """`docker …` against this engine. Raises EnvironmentUnfitError when it fails and `check` is set."""
        passed = {name: value for name, value in self._caller.items() if _PASSED.fullmatch(name)}
        done = run(
            ("docker", *arguments),
            environment={**passed, "DOCKER_HOST": self.endpoint},
            say=self._say,
            timeout_s=timeout_s,
        )
        if check and done.returncode:
            raise unfit(last_line(done.stderr))
        return done

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Turn what the SDK raises into EnvironmentUnfitError. NotFound passes: it is an answer."""
        import requests  # noqa: PLC0415  with the SDK
        from docker.errors import APIError, DockerException, NotFound  # noqa: PLC0415  half a second

        try:
            yield
        except NotFound:
            raise
        except APIError as error:
            raise unfit(last_line(str(error.explanation))) from error
        except (DockerException, requests.RequestException) as error:
            if isinstance(error, requests.Timeout) or isinstance(error.__cause__, requests.Timeout):
                raise EnvironmentUnfitError(
                    f"the docker daemon at {self.endpoint} did not answer within {CALL_TIMEOUT_S:g} s",
                    hint="sudo systemctl restart docker",
                ) from error
            # guard: F33
            self._require_daemon()  # it may have gone since it was asked last
            raise unfit(last_line(str(error))) from error

    def _require_daemon(self) -> None:
        """Raises EnvironmentUnfitError when nobody listens on the socket, or we may not talk to it."""
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


def unfit(words: str) -> EnvironmentUnfitError:
    """Docker's own words, and what to do about them where that is known."""
    words = words.removeprefix("Error response from daemon: ")
    hint = next((hint for part, hint in _HINTS if part in words), "docker info")
    return EnvironmentUnfitError(f"docker: {words}", hint=hint)
