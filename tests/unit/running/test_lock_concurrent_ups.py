"""Of many concurrent `up`s one starts a server; the others exit immediately and name the one that runs."""

from pathlib import Path

from tests.support.concurrent_ups import deploy_at_once, open_fake_deployment
from tests.support.fake_deployment import FakeDeployment


def test_one_up_starts_and_the_others_exit(fake: FakeDeployment, tmp_path: Path) -> None:
    release, launch = fake.stored(fake.plan())
    left = deploy_at_once(open_fake_deployment, tmp_path, release, launch, 8)
    assert sorted(one.code for one in left) == [0, *[8] * 7]
    refused = [one for one in left if one.code == 8]
    assert all(" held by pid " in one.said or "has just taken" in one.said for one in refused)
    assert len(fake.processes()) == 2  # the server and its worker
    assert fake.names() is not None
