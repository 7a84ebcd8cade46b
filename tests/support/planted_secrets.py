"""Fourteen secrets that nobody has, planted wherever a user may have them, and how to find one again."""

import base64
import json
from collections.abc import Iterable
from pathlib import Path

ENVIRONMENT = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY",
    "S3_SECRET_ACCESS_KEY", "REGISTRY_PASSWORD",
)  # fmt: skip
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
FILES = (".netrc", ".docker/config.json", ".cache/huggingface/token", ".cache/huggingface/stored_tokens")
PLACES = (*ENVIRONMENT, *PROXIES, *FILES)


def canary(place: str) -> str:
    return f"canary-{PLACES.index(place):02d}-q7Wz9"


def forms(secret: str) -> set[bytes]:
    raw = secret.encode()
    return {raw, base64.b64encode(raw).rstrip(b"=")[:-1], raw.hex().encode(), raw[::-1]}


def hits(data: bytes, secrets: Iterable[str]) -> set[str]:
    return {secret for secret in secrets if any(form in data for form in forms(secret))}


SECRETS = tuple(canary(place) for place in PLACES)


def plant(folder: Path) -> None:
    """The files, in a home directory."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        login = base64.b64encode(f"me:{canary(name)}".encode()).decode()
        (folder / name).write_text(
            {
                ".netrc": f"machine 127.0.0.1 login me password {canary(name)}\n",
                ".docker/config.json": json.dumps({"auths": {"registry.example": {"auth": login}}}),
            }.get(name, canary(name))
        )


def variables() -> dict[str, str]:
    """The variables; the proxies lead nowhere."""
    planted = {name: canary(name) for name in ENVIRONMENT}
    return planted | {name: f"http://me:{canary(name)}@127.0.0.1:1" for name in PROXIES}
