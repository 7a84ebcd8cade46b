import json

import pytest

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.planning.plan import LaunchPlan, plan_hash
from deckard_deploy.running.releases import ReleaseFolder


def plan_on_disk(release: ReleaseFolder) -> LaunchPlan:
    """The plan as it is now: a loaded release keeps the one that it was loaded with."""
    return ReleaseFolder(release.folder).load().plan


def test_store_writes_files_and_plan(fake):
    plan = fake.plan()
    release = fake.releases.store(
        plan.hash, {"plan.json": plan.model_dump_json(), "patches/eagle.py": "pass\n"}
    )
    assert plan_on_disk(release) == plan
    assert release.text("patches/eagle.py") == "pass\n"
    # The user in the container must read it.
    assert (release.folder / "patches/eagle.py").stat().st_mode & 0o777 == 0o644
    assert release.launch() is None
    assert [one.plan_hash for one in fake.releases.all()] == [plan.hash]
    assert [entry.name for entry in fake.deployment.releases.iterdir()] == [plan.hash]


def test_store_of_same_content_writes_nothing(fake):
    release, _ = fake.stored(fake.plan())
    before = {path: path.stat().st_mtime_ns for path in release.folder.iterdir()}
    inodes = {path: path.stat().st_ino for path in release.folder.iterdir()}
    fake.stored(fake.plan())
    assert {path: path.stat().st_mtime_ns for path in release.folder.iterdir()} == before
    assert {path: path.stat().st_ino for path in release.folder.iterdir()} == inodes


def test_store_repairs_damaged_file_and_keeps_launch(fake):
    plan = fake.plan()
    release, launch = fake.stored(plan)
    release.record(launch)
    (release.folder / "plan.json").write_bytes(b"\xff")
    fake.stored(plan)
    assert plan_on_disk(release) == plan
    assert release.launch() == launch


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".", "launch.json"])
def test_store_refuses_file_outside_release(fake, name):
    with pytest.raises(BadInputError, match="cannot be a file of a release"):
        fake.releases.store("0" * 12, {name: "x"})


def test_store_refuses_link_inside_release(fake, tmp_path):
    release, _ = fake.stored(fake.plan())
    (release.folder / "patches").symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="not a folder of ours"):
        fake.releases.store(release.plan_hash, {"patches/x.py": "x"})
    assert not (tmp_path / "x.py").exists()


@pytest.mark.parametrize("name", ["..", "0" * 11, "0" * 13, "ABCDEF012345", "../../../etc"])
def test_get_refuses_invalid_hash(fake, name):
    with pytest.raises(BadInputError, match="is not a release"):
        fake.releases.get(name)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"launch_id": 1}', '{"launch_id": "x", "state": "lost"}', "\udcff"]
)
@pytest.mark.parametrize("name", ["plan.json", "launch.json"])
def test_damaged_file_is_named_with_hint(fake, name, content):
    release, _ = fake.stored(fake.plan())
    (release.folder / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(IntegrityError, match=name) as caught:
        plan_on_disk(release) if name == "plan.json" else release.launch()
    assert str(release.folder) in caught.value.hint


def test_plan_of_other_release_is_refused(fake):
    release, _ = fake.stored(fake.plan())
    (release.folder / "plan.json").write_text(fake.plan(FAKE="other").model_dump_json())
    with pytest.raises(IntegrityError, match=f"not {release.plan_hash}") as caught:
        plan_on_disk(release)
    # Each `up` reads this plan first, so the hint must name the folder.
    assert caught.value.hint.endswith(f"rm -r {release.folder}")


def test_release_of_earlier_version_is_read(fake):
    earlier = fake.plan().model_dump(mode="json")
    del earlier["compatibility"]  # as if it were new
    release = fake.releases.store(plan_hash(earlier), {"plan.json": json.dumps(earlier)})
    plan = plan_on_disk(release)
    assert plan == fake.plan()
    assert plan.hash != release.plan_hash


def test_switch_moves_current_and_previous(fake):
    first, second, third = (fake.stored(fake.plan(N=str(number)))[0] for number in range(3))
    assert fake.releases.current() is None
    for release in (first, second, third, third):
        fake.releases.switch(release)
    assert fake.releases.current() == third
    assert fake.releases.previous() == second


@pytest.mark.parametrize("target", ["/etc", "releases/../../x", "releases/x", "../releases/000000000000"])
def test_current_outside_releases_is_refused(fake, target):
    fake.deployment.current.symlink_to(target)
    with pytest.raises(IntegrityError, match="points at"):
        fake.releases.current()


def test_link_in_place_of_release_is_refused(fake, tmp_path):
    (fake.deployment.releases / ("0" * 12)).symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="is a link"):
        fake.releases.all()


def test_prune_keeps_three_with_current_and_previous(fake):
    stored = []
    for number in range(6):
        release, launch = fake.stored(fake.plan(N=str(number)))
        release.record(launch)
        stored.append(release)
        if number < 2:
            fake.releases.switch(release)
    fake.releases.prune()
    # previous, current, and the last launched of the others
    assert set(fake.releases.all()) == {stored[0], stored[1], stored[5]}


def test_damaged_plan_hinders_no_listing(fake):
    stored = [fake.stored(fake.plan(N=str(number)))[0] for number in range(5)]
    for release in stored[:2]:
        fake.releases.switch(release)
    for release in stored:
        (release.folder / "plan.json").write_text("{")
    assert set(fake.releases.all()) == set(stored)
    assert (fake.releases.current(), fake.releases.previous()) == (stored[1], stored[0])
    fake.releases.prune()
    assert len(fake.releases.all()) == 3
    with pytest.raises(IntegrityError, match=r"plan\.json is missing or damaged"):
        fake.releases.current().load()


def test_loaded_release_equals_its_folder(fake):
    release, _ = fake.stored(fake.plan())
    other, _ = fake.stored(fake.plan(N="1"))
    folder = fake.releases.get(release.plan_hash)
    assert folder == release
    assert release == folder
    assert {folder, release} == {release}
    assert folder != other
    assert release.load() is release


def test_clear_leftovers_of_killed_writer(fake):
    release, _ = fake.stored(fake.plan())
    for folder in (fake.deployment.folder, fake.deployment.releases, release.folder):
        (folder / ".tmp-x").write_text("half")
    fake.releases.clear_leftovers()
    assert list(fake.state.root.rglob(".tmp-*")) == []


def test_launch_or_none_ignores_damaged_record(fake):
    release, launch = fake.stored(fake.plan())
    assert release.launch_or_none() is None
    release.record(launch)
    assert release.launch_or_none() == launch
    (release.folder / "launch.json").write_text("{")
    assert release.launch_or_none() is None
