"""Restart policies and messages of a supervisor."""

import pytest
from pydantic import ValidationError

from deckard_deploy.running.process.supervision import (
    ServerSpec,
    kill_tagged,
    restart_limit,
    server_tag,
    supervisor_tag,
)


@pytest.mark.parametrize(
    ("policy", "limit"),
    [("no", 0), ("on-failure:3", 3), ("on-failure", None), ("always", None), ("unless-stopped", None)],
)
def test_restart_policy_has_limit(policy: str, limit: int | None):
    assert restart_limit(policy) == limit


def test_tags_of_server_and_supervisor_differ(tmp_path):
    assert server_tag(tmp_path) != supervisor_tag(tmp_path)
    assert {tag.partition("=")[2] for tag in (server_tag(tmp_path), supervisor_tag(tmp_path))} == {
        str(tmp_path)
    }


def test_kill_of_unused_tag_kills_nothing(tmp_path):
    assert kill_tagged(server_tag(tmp_path)) == []


def test_spec_of_first_version_is_read():
    """A supervisor may be newer than the file: gateway and socket came later."""
    text = (
        '{"argv": ["vllm"], "environment": {}, "launch_id": "l", "plan_hash": "p", "restarts": null,'
        ' "grace_s": 1.5, "log_bytes": 9}'
    )
    spec = ServerSpec.model_validate_json(text)
    assert (spec.gateway, spec.socket, spec.restarts) == ((), None, None)


def test_spec_with_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="surprise"):
        ServerSpec.model_validate_json('{"surprise": 1}')
