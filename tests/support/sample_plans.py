"""Plans for rendering tests: every built-in profile, and one with hostile text in its free-text fields."""

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.planning.plan import BindMount, LaunchPlan
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan

PROFILES = listing.names("profiles")
DOCKER_ENGINE = "vllm-0.19.1-cpu-docker"


def built_in(profile: str, engine: str | None = None) -> LaunchPlan:
    """Return the profile's own plan; `cpu` on its docker engine, so that every plan has an image."""
    engine = DOCKER_ENGINE if profile == "cpu" else engine
    resolved = resolve(Deployment(engine=engine), profile=library.profile(profile))
    return with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches)


def with_text(text: str) -> LaunchPlan:
    """Return the spark plan with `text` as a value of an option, a variable and a mount."""
    plan = built_in("spark", "vllm-0.19.1")
    return plan.model_copy(
        update={
            "arguments": (*plan.arguments, "--chat-template", text),
            "environment": {**plan.environment, "NOTE": text},
            "patches": (),
            "request_filter": None,
            "mounts": (*plan.mounts, BindMount(source=f"/data/{text}", target=f"/mnt/{text}")),
        }
    )
