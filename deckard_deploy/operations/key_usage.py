"""What each key has used, read from the metrics that the filter of requests counts (plugins/request-filter)."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from deckard_deploy.measuring.metrics import Page


class KeyUsage(BaseModel):
    """What a key has used since the engine of a deployment was started; errors: answers of status 400 and above.

    first_token_s: median time to the first event of a stream; None without a stream.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    deployment: str
    key: str
    requests: int
    errors: int
    prompt_tokens: int
    generation_tokens: int
    first_token_s: float | None


def usage_on(deployment: str, page: Page) -> Iterator[KeyUsage]:
    """Yield what each key has used, by a page of metrics."""
    nothing = Page(0.0, {}, {})
    requests = page.samples.get("deckard_key_requests_total", {})
    for key in sorted({dict(labels)["key"] for labels in requests}):
        of_key = {
            name: {labels: value for labels, value in series.items() if dict(labels).get("key") == key}
            for name, series in page.samples.items()
            if name.startswith("deckard_key_")
        }
        own = Page(page.at_s, of_key, page.types)
        first = own.histogram("deckard_key_first_token_seconds", nothing)
        yield KeyUsage(
            deployment=deployment,
            key=key,
            requests=int(own.value("deckard_key_requests_total") or 0),
            errors=int(sum(value for labels, value in requests.items() if _is_error(dict(labels), key))),
            prompt_tokens=int(own.value("deckard_key_prompt_tokens_total") or 0),
            generation_tokens=int(own.value("deckard_key_generation_tokens_total") or 0),
            first_token_s=first.quantile(0.5) if first else None,
        )


def _is_error(labels: dict[str, str], key: str) -> bool:
    return labels["key"] == key and int(labels["status"]) >= 400
