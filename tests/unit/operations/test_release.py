"""Release folders: the files that this version renders differently."""

import json
from pathlib import Path

from deckard_deploy import __version__
from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.operations.plan import plan_for_host
from deckard_deploy.operations.release import (
    asked_model,
    content_hashes,
    create_release,
    record_asked,
    rendered_files,
    renew_gateway_config,
    stale_files,
)
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Releases


def test_stale_files_are_named(tmp_path: Path) -> None:
    directory = StateDir(tmp_path)
    plan = plan_for_host(resolve(Deployment(name="box"), profile=library.profile("spark")), directory, None)
    release, launch = create_release(plan, Releases(directory.create("box")))
    release.record(launch)
    assert stale_files(release) == ()
    release.record(
        launch.model_copy(update={"rendered": {**launch.rendered, "nginx.conf": "another version's"}})
    )
    assert stale_files(release) == ("nginx.conf",)
    release.record(launch.model_copy(update={"rendered": {}}))  # by a version that did not write it down
    assert stale_files(release) == ("nginx.conf", "compose.yaml")


def test_gateway_of_another_version_is_renewed_in_place(tmp_path: Path) -> None:
    directory = StateDir(tmp_path)
    plan = plan_for_host(resolve(Deployment(name="box"), profile=library.profile("spark")), directory, None)
    release, launch = create_release(plan, Releases(directory.create("box")))
    config = release.folder / "nginx.conf"
    text, inode = config.read_text(), config.stat().st_ino
    release.record(launch)
    assert renew_gateway_config(release) is False
    release.record(launch.model_copy(update={"rendered": {**launch.rendered, "nginx.conf": "other"}}))
    config.write_text("of another version\n" * 10_000)
    assert renew_gateway_config(release) is True
    assert (config.read_text(), config.stat().st_ino) == (text, inode)
    assert (release.launch(), stale_files(release)) == (launch, ())
    release.record(launch.model_copy(update={"rendered": {}}))  # the engine's own file is stale too
    assert renew_gateway_config(release) is False


def test_comments_do_not_change_content_hash(tmp_path: Path) -> None:
    directory = StateDir(tmp_path)
    plan = plan_for_host(resolve(Deployment(name="box"), profile=library.profile("spark")), directory, None)
    texts = rendered_files(plan, "deckard-launch-0")
    assert all(f"deckard-deploy {__version__}" in text.partition("\nservices:")[0] for text in texts.values())
    newer = {
        name: text.replace(f"deckard-deploy {__version__}", "deckard-deploy 99")
        for name, text in texts.items()
    }
    assert newer != texts
    assert content_hashes(newer) == content_hashes(texts)
    assert content_hashes({"nginx.conf": texts["nginx.conf"].replace("401", "200")}) != content_hashes(texts)


def test_own_model_is_read_from_what_was_asked(tmp_path: Path) -> None:
    directory = StateDir(tmp_path)
    releases = Releases(directory.create("box"))
    plan = plan_for_host(resolve(Deployment(name="box"), profile=library.profile("spark")), directory, None)
    spec = library.model("gemma-4-31b-it").model_copy(update={"name": "mine"})
    release, _ = create_release(plan, releases, json.dumps({"model": spec.model_dump(mode="json")}))
    assert asked_model(release) == spec
    for asked in ('{"model": null}', '{"model": {"name": 1}}', "[]", "no JSON"):
        record_asked(release, releases, asked)
        assert asked_model(release) is None
