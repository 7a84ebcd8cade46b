"""`support`: one archive for a bug report, without secrets and without the names of its user and machine."""

import io
import platform
import re
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from deckard_deploy import __version__
from deckard_deploy.doctor.findings import Finding
from deckard_deploy.doctor.judge import evaluate_rules
from deckard_deploy.doctor.target import Folders, Target
from deckard_deploy.errors import DeployError
from deckard_deploy.operations.deployments import DeploymentRef, open_deployment
from deckard_deploy.operations.host import read_host_facts
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.running.releases import FAILURE_LOG, Releases
from deckard_deploy.system.files import write_atomically

TAIL = 400  # lines of a log: a failure with its traceback, and the configuration before it
MAX_BYTES = 1 << 20  # of one file
# The files of a release that are worth having. The gateway's folder has the hashes of keys, and is left out.
_RELEASE_FILES = ("plan.json", "launch.json", "asked.json", "compose.yaml", "nginx.conf")
# A line in which vLLM logs a request, prompt and all (entrypoints/logger.py), if it was told to.
_REQUEST = re.compile(r"Received request|\bprompt\w*\s*[:=]|\"(?:messages|prompt|content)\"\s*:")
_CREDENTIALS = re.compile(r"://[^/\s@]+@")
_ADDRESS = re.compile(r"(?<![\d.])(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
Redact = Callable[[str], str]


class SupportFile(NamedTuple):
    """One file of the archive, already redacted. about: what it is, for people."""

    name: str
    about: str
    text: str


def collect(
    selection: Selection, report: Reporter, *, redact: Redact, environment: Mapping[str, str]
) -> list[SupportFile]:
    """Return the files for a bug report. Nothing is written, and nothing that runs is touched.

    redact: hides the secrets of the environment.
    """
    directory = state_directory(selection.state_dir)
    clean = _Redaction(redact, environment, directory)
    files = []
    for file in _files(selection, directory, report):
        files.append(file._replace(text=clean.text(file.text)))
    return files


def write_archive(files: list[SupportFile], path: Path) -> None:
    """Write the archive, readable by its user alone. Raises EnvironmentUnfitError."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for file in files:
            content = file.text.encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"deckard-support/{file.name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    write_atomically(path, data.getvalue())


class _Redaction:
    """Hides secrets, the home, the user, the host, addresses of the network, and requests in logs."""

    def __init__(self, redact: Redact, environment: Mapping[str, str], directory: StateDir) -> None:
        self._redact = redact
        self._words = []
        for text, instead in (
            (environment.get("HOME", "").rstrip("/"), "~"),
            (str(directory.root), "STATE"),
            (environment.get("USER", ""), "USER"),
            (environment.get("LOGNAME", ""), "USER"),
            (socket.gethostname(), "HOST"),
        ):
            if len(text) >= 3 and text not in ("root", "localhost", "deckard"):
                self._words.append((re.compile(rf"(?<![\w-]){re.escape(text)}(?![\w-])"), instead))

    def text(self, text: str) -> str:
        kept = [line for line in text[-MAX_BYTES:].splitlines() if not _REQUEST.search(line)]
        text = _CREDENTIALS.sub("://[secret]@", self._redact("\n".join(kept)))
        for word, instead in self._words:
            text = word.sub(instead, text)
        return _ADDRESS.sub("ADDRESS", text) + "\n"


def _files(selection: Selection, directory: StateDir, report: Reporter) -> Iterator[SupportFile]:
    yield SupportFile("versions.txt", "versions of this tool, Python and the system", _versions())
    target = Target(folders=Folders(weights=directory.models, caches=()))
    facts = read_host_facts(target)
    yield SupportFile(
        "facts.json",
        "this machine, as `doctor --save` reads it",
        facts.model_dump_json(indent=1, exclude_defaults=True),
    )
    findings = "\n".join(_finding_text(each) for each in evaluate_rules(facts, target))
    yield SupportFile("doctor.txt", "findings about this machine", findings)
    names = directory.with_replicas()
    if selection.name:
        names = [each for each in names if selection.name in (each, directory.front_of(each))] or [
            selection.name
        ]
    for name in names:
        yield from _deployment_files(DeploymentRef(directory, name), report)


def _versions() -> str:
    return "\n".join(
        (
            f"deckard-deploy {__version__}",
            f"python {platform.python_version()}",
            f"system {platform.system()} {platform.release()} {platform.machine()}",
        )
    )


def _finding_text(finding: Finding) -> str:
    text = f"{finding.severity.value:5} {finding.rule}: {finding.what}"
    return f"{text}\n      fix: {finding.fix}" if finding.fix else text


def _deployment_files(deployment: DeploymentRef, report: Reporter) -> Iterator[SupportFile]:
    directory, name = deployment
    releases = Releases(directory.deployment(name))
    failure = releases.last_failure_log()
    chosen = [releases.current(), releases.last_failed(), next(iter(releases.all()), None)]
    folders = {release.folder for release in chosen if release is not None}
    if failure:
        folders.add(failure.parent)
    for folder in sorted(folders):
        yield from _release_files(name, folder)
    try:
        with open_deployment(directory, name, report) as context:
            for runtime in context.runtimes.values():
                lines = [*runtime.tail(TAIL)]
                if lines:
                    about = f"the last {len(lines)} lines of the engine's log"
                    yield SupportFile(f"{name}/engine.log", about, "\n".join(lines))
    except DeployError as error:
        yield SupportFile(f"{name}/engine.log", "why there is no log of the engine", error.message)


def _release_files(name: str, folder: Path) -> Iterator[SupportFile]:
    where = f"{name}/{folder.name}"
    for file in _RELEASE_FILES:
        path = folder / file
        if path.is_file():
            yield SupportFile(f"{where}/{file}", "of a release", path.read_text("utf-8", "replace"))
    log = folder / FAILURE_LOG
    if log.is_file():
        end = log.read_text("utf-8", "replace").splitlines()[-TAIL:]
        yield SupportFile(f"{where}/{FAILURE_LOG}", "the end of the log of a failed start", "\n".join(end))
