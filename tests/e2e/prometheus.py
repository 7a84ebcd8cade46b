"""Queries to a Prometheus, and an image of Debian's."""

import subprocess
import tarfile
import time
from collections import defaultdict
from io import BytesIO
from pathlib import Path
from typing import Any

import requests


def ask(port: int, query: str) -> list[Any]:
    """The series of the answer; none while it starts (it listens first, and says 503 until it is ready)."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=10)
    except (requests.ConnectionError, requests.Timeout):  # it starts, or the machine is busy
        return []
    if answer.status_code == requests.codes.service_unavailable:
        return []
    assert answer.ok, (query, answer.text)
    return list(answer.json()["data"]["result"])


def alert_seconds(port: int, since: float, step_s: int) -> dict[tuple[str, str], int]:
    """Return for how long each alert was pending or firing since that time, by name and state."""
    period = {"query": "ALERTS", "start": str(since), "end": str(time.time()), "step": str(step_s)}
    answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query_range", params=period, timeout=30)
    assert answer.ok, answer.text
    seconds: dict[tuple[str, str], int] = defaultdict(int)
    for series in answer.json()["data"]["result"]:
        labels = series["metric"]
        seconds[labels["alertname"], labels["alertstate"]] += step_s * len(series["values"])
    return dict(seconds)


def make_image(tag: str) -> None:
    """Import an image of this machine's Prometheus and the libraries that it names."""
    binary = Path("/usr/bin/prometheus")
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout.split()
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for file in (str(binary), *(word for word in listed if word.startswith("/"))):
            tar.add(Path(file).resolve(), arcname=file)
        for folder in ("prometheus", "tmp"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(made)
    command = ["docker", "import", "--change", f'ENTRYPOINT ["{binary}"]', "-", tag]
    subprocess.run(command, input=archive.getvalue(), check=True, capture_output=True)
