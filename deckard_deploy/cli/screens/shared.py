"""The other deployments of the machine next to a plan, as lines of text and as JSON."""

from typing import Any

from deckard_deploy.cli.screens.layout import wrapped
from deckard_deploy.operations.plan import PlanView, changes_of_both, own_share
from deckard_deploy.planning.memory.parts import readable_bytes


def shared_json(view: PlanView) -> dict[str, Any] | None:
    """Return the machine and its other deployments for `plan --json`; sizes in bytes."""
    shared = view.planned.shared
    if shared is None:
        return None
    both = changes_of_both(view)
    return {
        "neighbours": [
            {
                "deployment": each.name,
                "model": each.model,
                "port": each.port,
                "gpus": list(each.gpus),
                "bytes": each.taken,
            }
            for each in shared.neighbours
        ],
        "total": shared.total,
        "free": shared.free,
        "usable": shared.usable,
        "problem": view.planned.problem or None,
        "changes": list(own_share(view.planned)),
        "both": both._asdict()
        | {"options": list(both.options), "neighbour_options": list(both.neighbour_options)}
        if both
        else None,
    }


def shared_lines(view: PlanView) -> list[str]:
    """Return the other deployments and what they leave, as lines of at most 80 columns; none without others."""
    planned = view.planned
    shared = planned.shared
    if shared is None:
        return []
    lines = []
    for each in shared.neighbours:
        gpus = f" of GPU {', '.join(each.gpus)}" if each.gpus else ""
        taken = f"{readable_bytes(each.taken)}{gpus}, port {each.port}"
        lines += wrapped(f"next to      {each.name}: {each.model}; {taken}")
    left = f"{readable_bytes(shared.free)} of {readable_bytes(shared.total)}"
    lines += wrapped(f"left         {left}; {readable_bytes(shared.usable)} for this one at most")
    if planned.problem:
        lines += wrapped(f"fits         NO: {planned.problem}")
    lines += [f"  to fit     {option}" for option in own_share(planned)]
    both = changes_of_both(view)
    if both:
        options = " ".join(both.neighbour_options)
        lines += wrapped(f"  to fit     of {both.neighbour}, which restarts: {options}")
        lines += [f"             and {' '.join(both.options)}"] if both.options else []
    return lines
