"""Where `bench` finds the server, and by which certificate it knows it."""

from pathlib import PurePosixPath

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.specs import NO_LAYERS
from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.operations.bench_target import (
    _server_address,
    ceilings_of,
    certificate_variables,
    describe_deployment,
    refuse_foreign_certificate,
    refuse_socket,
)
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from deckard_deploy.planning.replicas import replica_choice, shares
from tests.support.sample_choices import choice

NGINX = DEFAULT_PATHS._replace(nginx=PurePosixPath("/usr/sbin/nginx"))
OWN = ("publish.certificate=/c.pem", "publish.certificate_key=/c.key")


@pytest.mark.parametrize(
    ("profile", "settings", "server"),
    [
        ("cpu", [], "http://127.0.0.1:8000"),
        ("cpu", ["publish.port=9000"], "http://127.0.0.1:9000"),
        ("cpu", ["publish.address=::1"], "http://[::1]:8000"),
        ("cpu", ["publish.expose=192.168.1.20"], "https://192.168.1.20:8000"),
        ("cpu", ["publish.expose=0.0.0.0", "publish.tls=false"], "http://127.0.0.1:8000"),
        # In the container.
        ("spark", ["publish.expose=192.168.1.20", "publish.port=9000"], "http://127.0.0.1:8000"),
        (
            "spark",
            ["container.network=host", "publish.address=::1", 'allow_unsafe=["container.network"]'],
            "http://[::1]:8000",
        ),
    ],
)
def test_server_address_is_seen_from_its_python(profile: str, settings: list[str], server: str) -> None:
    assert _server_address(build_plan(choice(profile, *settings), NGINX)) == server


@pytest.mark.parametrize(
    ("address", "server"), [("127.0.0.1", "http://127.0.0.1:8000"), ("::1", "http://[::1]:8000")]
)
def test_process_without_gateway_is_asked_directly(address: str, server: str) -> None:
    assert _server_address(build_plan(choice("cpu", f"publish.address={address}"))) == server


def test_only_own_certificate_is_trusted() -> None:
    exposed, plain, own, container = (
        build_plan(choice(profile, *settings), NGINX)
        for profile, settings in (
            ("cpu", ["publish.expose=192.168.1.20"]),
            ("cpu", []),
            ("cpu", OWN),
            ("spark", OWN),
        )
    )
    assert certificate_variables(exposed) == {
        "SSL_CERT_FILE": "/srv/deckard/deployments/cpu/gateway/certificate.pem"
    }
    assert certificate_variables(plain) == {}
    for plan in (exposed, plain, container):
        refuse_foreign_certificate(plan)
    with pytest.raises(BadInputError, match=r"/c\.pem") as caught:
        refuse_foreign_certificate(own)
    assert caught.value.hint


def test_replica_in_a_container_is_refused() -> None:
    """Its socket is no URL: the benchmark asked a port that nothing listens on."""
    resolved = choice("b200", "replicas=2")
    share = shares(resolved)[1]
    on_socket = build_plan(replica_choice(resolved, share), DEFAULT_PATHS._replace(sockets=True))
    with pytest.raises(BadInputError, match="b200-2 listens on a socket") as caught:
        refuse_socket(on_socket)
    assert "deckard-deploy up --profile b200 --name b200-one" in caught.value.hint
    refuse_socket(build_plan(replica_choice(resolved, share)))
    refuse_socket(build_plan(choice("cpu"), NGINX))


def test_own_model_has_a_roofline() -> None:
    plan = build_plan(choice("spark"))
    settings = Settings(runs=1, most_runs=1)
    known = ceilings_of(plan, settings)
    assert all(ceiling.tokens_per_s for ceiling in known)
    own = plan.model_copy(update={"model": "mine"})
    assert ceilings_of(own, settings, library.model(plan.model)) == known
    # The control: without the spec the name is not known.
    assert all("no model named 'mine'" in ceiling.why for ceiling in ceilings_of(own, settings))


def test_unknown_architecture_has_no_roofline() -> None:
    plan = build_plan(choice("spark"))
    model = library.model(plan.model).model_copy(update={"architecture": NO_LAYERS})
    (ceiling, *_) = ceilings_of(plan, Settings(runs=1, most_runs=1), model)
    assert ceiling.tokens_per_s is None
    assert "is not known to planning" in ceiling.why


def test_record_does_not_name_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the weights below the user's home was in the record and on the page."""
    monkeypatch.setenv("HOME", "/home/ann")
    plan = build_plan(choice("cpu", "drafter=tiny-assistant"))
    arguments = ("/home/ann/.local/share/x/tiny-gemma4", *plan.arguments[1:])
    config = '--speculative-config={"model":"/home/ann/d","method":"draft_model","num_speculative_tokens":2}'
    subject = describe_deployment(plan.model_copy(update={"arguments": (*arguments, config)}))
    assert "/home/ann" not in subject.model_dump_json()
    assert subject.arguments[0] == "~/.local/share/x/tiny-gemma4"
