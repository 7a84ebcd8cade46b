"""The two sides of a comparison: a record, or a published table."""

from pathlib import Path
from typing import NamedTuple

from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring import records
from deckard_deploy.measuring.baselines import Baseline, baselines
from deckard_deploy.measuring.records import BenchRecord


class Side(NamedTuple):
    """One side. speeds: tok/s of each run, by concurrency. about: what a reader has to know of it.

    subject: the model and the profile, "?" for an unknown one.
    """

    name: str
    speeds: dict[int, list[float]]
    about: str
    subject: str
    record: BenchRecord | None = None


def find_side(folder: Path, name: str) -> Side:
    """Return a published table by its name, or else a record. Raises BadInputError, IntegrityError."""
    published_table = baselines().get(name)
    if published_table is None:
        return of_record(records.load(records.find(folder, name)))
    about = (
        f"{published_table.title}, on a {published_table.machine}; "
        f"{published_table.method} ({published_table.source})"
    )
    return Side(name, published_table.speeds, about, f"{published_table.model} on {published_table.profile}")


def published(name: str) -> Baseline:
    """Return the published table of that name. Raises BadInputError."""
    if name not in baselines():
        raise BadInputError(
            f"no published table {name[:80]!r}; known: {', '.join(baselines())}", hint="--compare seed"
        )
    return baselines()[name]


def of_record(record: BenchRecord) -> Side:
    """Return the speeds of a record."""
    speeds = {}
    for concurrency in record.concurrencies:
        speeds[concurrency] = [run.tokens_per_s for run in record.of(concurrency)]
    subject = record.subject
    what = f"{subject.model} on {subject.profile or '?'}"
    about = f"{what}, vLLM {subject.vllm_version}"
    if subject.drafting:
        about += f", {subject.drafting.method} drafting {subject.drafting.tokens}"
    return Side(record.id, speeds, about, what, record)


def differences_in_subject(old: Side, new: Side) -> str:
    """Return both subjects if the sides are of different models or machines; otherwise ""."""
    return "" if old.subject == new.subject else f"{old.subject} and {new.subject}"


def differences_in_settings(old: Side, new: Side) -> str:
    """Return in what two records were asked differently, as one line; "" for a published table, which is not known."""
    if old.record is None or new.record is None:
        return ""
    before = old.record.settings
    after = new.record.settings
    fields = ["workload", "output_tokens", "requests"]
    # The number of input tokens is one of random prompts only.
    if before.workload != "text" or after.workload != "text":
        fields.insert(2, "input_tokens")
    differences = []
    for field in fields:
        one, other = getattr(before, field), getattr(after, field)
        if one != other:
            differences.append(f"{field} {one} and {other}")
    return ", ".join(differences)
