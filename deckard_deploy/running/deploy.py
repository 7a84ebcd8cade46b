"""From what runs to what should run: the decision, and the steps, each of which may be the last before a kill.

What is on disk only helps; what runs is asked of the runtimes. So `up` after a kill at any instant does the right
thing: the launch is recorded as starting before anything starts, and `current` moves only when it is ready.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from deckard_deploy.running.releases import Launch, Release, Releases
from deckard_deploy.running.runtime import Observation, Runtime

Action: TypeAlias = Literal["nothing", "follow", "start", "replace"]


@dataclass(frozen=True)
class Decision:
    """What `up` has to do, and why, for a reader.

    nothing: it runs and is ready. follow: it was started already, readiness is not proven. start: nothing is in the
    way. replace: something that is not it has to be stopped first.
    """

    action: Action
    cause: str


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a deployment lives.

    runtimes: by kind; every kind that any of its releases uses. follow: returns when the release's recorded launch
    is proven ready, raises DeployError when it is not going to be. say: a line of progress.
    """

    releases: Releases
    runtimes: Mapping[str, Runtime]
    follow: Callable[[Release, Runtime], None]
    say: Callable[[str], None]


def decide(desired: str, observed: Observation, launch: Launch | None) -> Decision:
    """Pure. `desired`: the plan hash; `launch`: the last recorded launch of the desired release."""
    raise NotImplementedError


def observe(runtimes: Mapping[str, Runtime]) -> Observation:
    """What runs of the deployment under any runtime; two at once are nobody's launch."""
    raise NotImplementedError


def bring_up(site: Site, release: Release, launch: Launch) -> Launch:
    """Stop what runs, start `release` as `launch` (state starting), follow it, make it current.

    On a DeployError: its log is kept, it is stopped, what was current before is brought back and followed, and the
    error is raised again, saying so. KeyboardInterrupt leaves everything as it is: a later `up` goes on from there.
    """
    raise NotImplementedError


def follow_up(site: Site, release: Release) -> Launch:
    """Prove the readiness of a launch that was started before, and make it current; failures as in bring_up."""
    raise NotImplementedError


def take_down(site: Site) -> bool:
    """Stop everything of the deployment; whether there was anything. Releases and `current` stay."""
    raise NotImplementedError
