"""The texts of a rendered folder: relative paths, variables of .env, and no key material."""

import subprocess
from pathlib import Path, PurePosixPath

import pytest
import yaml

from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.patching import plugin, request_filter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.rendering import folder
from deckard_deploy.rendering.folder import folder_plan, render_folder
from deckard_deploy.running.gateway.keys import Keys
from tests.support.sample_choices import choice

DOCKER_CPU = ("cpu", "engine=vllm-0.19.1-cpu-docker")


def planned(profile: str, *settings: str) -> LaunchPlan:
    resolved = choice(profile, *settings)
    plan = folder_plan(build_plan(resolved, folder.PATHS))
    return with_needed_patches(plan, resolved, folder.PATHS.patches)


def rendered(profile: str, *settings: str) -> dict[str, str]:
    return render_folder(planned(profile, *settings), choice(profile, *settings))


@pytest.mark.parametrize("chosen", [("spark",), ("h200", "engine=vllm-0.32.0"), DOCKER_CPU])
def test_compose_has_no_absolute_source(chosen: tuple[str, ...]) -> None:
    services = yaml.safe_load(rendered(*chosen)["compose.yaml"])["services"]
    sources = [volume["source"] for service in services.values() for volume in service["volumes"]]
    assert len(sources) >= 6
    assert not [source for source in sources if source.startswith(("/", "~"))]
    assert sources[0].startswith("${DECKARD_MODELS}/")  # not `$${`, which compose would not replace
    assert services["gateway"]["user"] == "${DECKARD_GATEWAY_USER}"
    assert services["vllm"].get("user", "${DECKARD_USER}") == "${DECKARD_USER}"


def test_located_plan_has_absolute_paths_only() -> None:
    plan = planned(*DOCKER_CPU).located(
        PurePosixPath("/srv/x"),
        {"DECKARD_MODELS": "/data", "DECKARD_USER": "5:6", "DECKARD_GATEWAY_USER": "7:8"},
    )
    assert plan.gateway is not None
    assert [mount.source for mount in plan.all_mounts][:2] == [
        "/data/tiny-gemma4", "/srv/x/cache/vllm-0.19.1-cpu-docker/vllm",
    ]  # fmt: skip
    assert all(mount.source.startswith(("/data/", "/srv/x/")) for mount in plan.all_mounts)
    assert (plan.user, plan.gateway.user) == ("5:6", "7:8")
    assert plan.gateway.folder == "/srv/x/deployments/cpu/gateway"


def test_models_of_env_start_from_folder() -> None:
    plan = planned("spark").located(PurePosixPath("/srv/x"), folder.DEFAULTS)
    assert plan.mounts[0].source == "/srv/x/models/deckard-31b"


def test_launch_is_known_by_label_and_name() -> None:
    plan = planned("spark")
    service = yaml.safe_load(rendered("spark")["compose.yaml"])["services"]["vllm"]
    assert service["labels"]["deckard.launch"] == f"deckard-launch-{plan.hash}"
    assert f"deckard-launch-{plan.hash}" in service["command"]


@pytest.mark.parametrize("script", ["prepare.sh", "keys.sh"])
@pytest.mark.parametrize(
    "settings",
    [(), ("publish.expose=192.168.1.20",), ("publish.certificate=/c d.pem", "publish.certificate_key=/k")],
)
def test_scripts_are_posix_shell(tmp_path: Path, script: str, settings: tuple[str, ...]) -> None:
    (tmp_path / script).write_text(rendered("spark", *settings)[script])
    done = subprocess.run(["sh", "-n", tmp_path / script], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def prepared(tmp_path: Path, *settings: str) -> Path:
    """Return a folder after prepare.sh, without docker and with a model that is one file."""
    for name, text in rendered("h200", "engine=vllm-0.32.0", *settings).items():
        (tmp_path / name).write_text(text)
    model = tmp_path / "models" / planned("h200", "engine=vllm-0.32.0").model
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    mount = planned("h200", "engine=vllm-0.32.0").plugin
    assert mount is not None
    plugin.build(mount.name, tmp_path / mount.source)
    request_filter.build(tmp_path / planned("h200", "engine=vllm-0.32.0").built[-1].source)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "docker").chmod(0o755)
    shell(tmp_path, "prepare.sh")
    return tmp_path


def shell(at: Path, *words: str, status: int = 0) -> str:
    environment = {"PATH": f"{at}/bin:/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run(
        ["sh", *words], cwd=at, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_keys_script_writes_what_tool_writes(tmp_path: Path) -> None:
    """The hash of a key, the lines and the version are those that the tool's own access.conf has."""
    at = prepared(tmp_path)
    access = at / "deployments/h200/gateway/access.conf"
    assert "geo $open { default 1; }" in access.read_text()
    assert access.stat().st_mode & 0o777 == 0o600
    key = shell(at, "keys.sh", "add", "dora").strip()
    assert shell(at, "keys.sh", "list") == "dora\n"
    assert key[-64:] not in access.read_text()
    keys = Keys(tmp_path / "state")
    with keys.lock():
        assert keys.take_over(access.read_text()) == ["dora"]
    own = [line for line in keys.access().splitlines() if '"dk-deckard"' in line]
    known = [line for line in keys.access().splitlines() if line not in own and "access_version" not in line]
    assert known == [line for line in access.read_text().splitlines() if "access_version" not in line]
    shell(at, "keys.sh", "revoke", "dora")
    assert shell(at, "keys.sh", "list") == ""
    assert "geo $open { default 0; }" in access.read_text()  # closed from the first key on


def test_keys_script_refuses(tmp_path: Path) -> None:
    at = prepared(tmp_path)
    shell(at, "keys.sh", "add", "dora")
    before = (at / "deployments/h200/gateway/access.conf").read_text()
    for words, says in (
        (("add", "dora"), "already"), (("add", "deckard"), "own key"), (("add", "A b"), "a name has"),
        (("revoke", "eve"), "no key is named"), (("add",), "a name has"), ((), "add NAME"),
    ):  # fmt: skip
        assert says in shell(at, "keys.sh", *words, status=1)
    assert (at / "deployments/h200/gateway/access.conf").read_text() == before


def test_exposed_folder_is_closed_without_keys(tmp_path: Path) -> None:
    at = prepared(tmp_path, "publish.expose=192.168.1.20")
    assert "geo $open { default 0; }" in (at / "deployments/h200/gateway/access.conf").read_text()
    assert (at / "deployments/h200/gateway/certificate.key").stat().st_mode & 0o777 == 0o600


def test_prepare_keeps_keys_and_settings(tmp_path: Path) -> None:
    at = prepared(tmp_path)
    shell(at, "keys.sh", "add", "dora")
    (at / "data").mkdir()
    (at / "models").rename(at / "data" / "models")
    (at / ".env").write_text("DECKARD_MODELS=data/models\n")
    assert "Ready" in shell(at, "prepare.sh")
    assert shell(at, "keys.sh", "list") == "dora\n"
    assert "DECKARD_MODELS=data/models\n" in (at / ".env").read_text()


def test_prepare_names_damaged_file(tmp_path: Path) -> None:
    at = prepared(tmp_path)
    mount = planned("h200", "engine=vllm-0.32.0").plugin
    assert mount is not None
    (at / mount.source).write_bytes(b"damaged")
    assert "a file of this folder is damaged" in shell(at, "prepare.sh", status=1)


def test_prepare_names_missing_weights(tmp_path: Path) -> None:
    at = prepared(tmp_path)
    (at / "models").rename(at / "elsewhere")
    assert "no weights in ./models/" in shell(at, "prepare.sh", status=1)
