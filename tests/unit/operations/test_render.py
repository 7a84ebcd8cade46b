"""`render`: plans of other hosts, and the texts that they cannot have."""

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.render import PlanFiles, absolute, plan_files
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.planning.plan import LaunchPlan


def planned(
    profile: str, *settings: str, root: str = "/srv/deckard", models: str | None = None
) -> LaunchPlan:
    return plan_files(Choice(profile=profile, settings=settings), root, models, SILENT).plan


def kubernetes(files: PlanFiles) -> str:
    return files.kubernetes(files.cluster())


def test_claim_holds_the_root() -> None:
    text = kubernetes(PlanFiles(planned("spark", root="/data/"), "/data/"))
    assert "subPath: models/deckard-31b" in text
    with pytest.raises(BadInputError, match=r"/weights/deckard-31b is not in /srv/deckard, which the claim"):
        kubernetes(PlanFiles(planned("spark", models="/weights")))


def test_plan_has_folders_of_other_host() -> None:
    assert all(mount.source.startswith("/data/") for mount in planned("spark", root="/data").mounts)
    sources = [mount.source for mount in planned("spark", models="/weights").mounts]
    assert sources[0].startswith("/weights/")


@pytest.mark.parametrize("path", ["data", "", "/da\nta", "$HOME", "~root"])
def test_relative_path_is_refused(path: str) -> None:
    with pytest.raises(BadInputError, match="an absolute path was expected"):
        absolute(path, "--root", home=True)


def test_home_is_for_containers_only() -> None:
    assert planned("spark", root="~/d").mounts[0].source.startswith("~/d/")
    with pytest.raises(BadInputError, match="--root: '~/d'"):
        planned("cpu", root="~/d")


@pytest.mark.parametrize("text", [PlanFiles.compose, PlanFiles.run, kubernetes])
def test_process_has_no_container_text(text) -> None:
    with pytest.raises(BadInputError, match="runs without Docker"):
        text(PlanFiles(planned("cpu")))


def test_plan_without_gateway_has_no_nginx_conf() -> None:
    assert "listen" in PlanFiles(planned("spark")).gateway()
    with pytest.raises(BadInputError, match="has no gateway"):
        PlanFiles(planned("cpu")).gateway()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("publish.expose=192.168.1.20",), "--expose needs the gateway"),
        (("publish.certificate=/c.pem", "publish.certificate_key=/c.key"), "TLS needs the gateway"),
    ],
)
def test_run_line_has_no_second_container(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        PlanFiles(planned("spark", *settings)).run()


def test_kubernetes_refuses_home() -> None:
    with pytest.raises(BadInputError, match="does not know whose ~/ is meant"):
        kubernetes(PlanFiles(planned("spark", root="~/d"), "~/d"))


@pytest.mark.parametrize("program", ["deckard-deploy", "/a b", "/a%h", "/a\n"])
def test_unit_refuses_program_path(program: str) -> None:
    with pytest.raises(BadInputError, match="--program"):
        PlanFiles(planned("spark")).unit(program=program, state_dir=None)
