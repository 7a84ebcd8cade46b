"""Faults of docker, its images and their mounts: F33 to F37, F39, F40, F50 to F53, F61 on."""

from tests.faults.fault import Fault

DOCKER = "tests/unit/running/docker/test_client.py"
DEPLOY = "tests/unit/running/test_deploy.py"
RULES = "tests/unit/doctor/test_judge.py::test_rule_finds_the_fault_and_accepts_the_rest"
AWAY = "tests/e2e/test_daemon_faults.py::test_stopped_daemon_is_reported_until_back"

FAULTS = (
    Fault(
        "F33",
        "the docker daemon is ended, and started again",
        "3: the docker daemon at … is not running; watch: degraded, and no restart is counted; one container answers "
        "when it is back",
        (f"{AWAY}[SIGTERM]", "tests/e2e/test_daemon_faults.py::test_up_fails_when_daemon_dies_then_recovers"),
        "assert 'is not running' in",
    ),
    Fault(
        "F34",
        "the docker daemon is killed, and started again",
        "the same; what it left behind is started again by watch, or by the next up",
        (f"{AWAY}[SIGKILL]", "tests/e2e/test_daemon_faults.py::test_up_fails_when_daemon_dies_then_recovers"),
        "errors.EnvironmentUnfitError",
    ),
    Fault(
        "F35",
        "the docker daemon hangs",
        "3: the docker daemon at … did not answer within 30 s",
        (
            "tests/e2e/test_daemon_faults.py::test_hanging_daemon_times_out",
            f"{DOCKER}::test_daemon_that_hangs_times_out",
        ),
        "it still waits",
        instead="3600",
    ),
    Fault(
        "F36",
        "no docker, no right to talk to it, an engine on another machine, no such context",
        "3: docker talks to ssh://…; the weights on this machine cannot be mounted there, or what else is the case",
        (
            f"{DOCKER}::test_remote_endpoint_is_refused",
            f"{DOCKER}::test_missing_docker_is_refused",
            f"{DOCKER}::test_daemon_that_does_not_run_is_refused",
            f"{DOCKER}::test_daemon_without_permission_is_refused",
            f"{DOCKER}::test_missing_context_shows_docker_message",
        ),
        "cannot be mounted there",
    ),
    Fault(
        "F37",
        "docker has no NVIDIA runtime and no CDI specification",
        "3: docker's runtimes are runc; install nvidia-container-toolkit",
        (f"{RULES}[gpu-runtime-fail-docker's runtimes ar]",),
        "nvidia runtime",
        instead="True",
    ),
    Fault(
        "F39",
        "an older plan runs",
        "change   OLD -> NEW and every difference; it is replaced only when the plan has changed",
        (
            f"{DEPLOY}::test_decide_action_and_cause",
            f"{DEPLOY}::test_new_plan_replaces_old",
        ),
        "assert 'nothing' == 'replace'",
    ),
    Fault(
        "F40",
        "another user's container or project has the name",
        "3: container … of project … was not started from …; it is left alone",
        (
            "tests/e2e/test_docker_runtime.py::test_foreign_project_is_left_alone",
            "tests/e2e/test_docker_runtime.py::test_foreign_container_is_left_alone",
        ),
        "docker-proxy",
    ),
    Fault(
        "F50",
        "a patch is mounted where the engine does not look, or is not the patch",
        "4: the original … is in use, not patch eagle: it was mounted somewhere else (Python 3.12)",
        (
            "tests/unit/patching/test_attestation.py::test_mount_mistakes_are_found",
            "tests/unit/patching/test_build.py::test_build_refuses_changed_base_and_writes_nothing",
        ),
        "DID NOT RAISE",
    ),
    Fault(
        "F51",
        "the image's tag has moved since it was locked",
        "4: … is sha256:… here, and deckard.lock holds it to sha256:…",
        (
            "tests/e2e/test_registry.py::test_up_requires_locked_digest",
            "tests/e2e/test_registry.py::test_lock_resolves_tag_at_registry",
        ),
        "DID NOT RAISE",
    ),
    Fault(
        "F52",
        "the image is for another machine",
        "3: … is for arm64, this host is amd64; docker pull --platform linux/amd64 …",
        (
            "tests/e2e/test_failing_containers.py::test_foreign_platform_image_is_refused",
            f"{RULES}[image-platform-fail-is for amd64, this h]",
        ),
        "Severity.OK",
        instead="True",
    ),
    Fault(
        "F53",
        "docker compose is missing, or is docker-compose 1",
        "3: docker has no compose plugin; /usr/bin/docker-compose is not the plugin that is meant",
        (
            f"{DOCKER}::test_older_compose_is_refused",
            f"{DOCKER}::test_compose_one_is_not_the_plugin",
            f"{DOCKER}::test_compose_two_and_later_is_accepted",
        ),
        "DID NOT RAISE",
    ),
    Fault(
        "F61",
        "a person has started a rendered compose file, whose engine carries the gateway's label, and a key is added",
        "nothing: only a gateway that this state directory has started gets a signal",
        (
            "tests/unit/running/docker/test_runtime.py::test_reload_signals_nothing_that_a_person_started",
            "tests/unit/running/docker/test_runtime.py::test_reload_never_signals_an_engine",
        ),
        "assert ['server HUP', 'gateway HUP'] == []",
        instead="True",
    ),
    Fault(
        "F62",
        "nginx crashes, behind it an engine of plain processes that is healthy",
        "nothing: the supervisor starts nginx again, with pauses, and the engine runs on",
        (
            "tests/unit/running/process/test_supervisor_gateway.py::test_killed_gateway_is_started_again_alone",
            "tests/unit/running/process/test_supervisor_gateway.py::test_failed_gateway_leaves_the_server_alone",
        ),
        "eventually(lambda",
    ),
    Fault(
        "F62b",
        "nginx's container has ended or is gone, and its engine is healthy",
        "watch: degraded: its gateway is exited: it is started again, the engine runs on; up: the same",
        (
            "tests/unit/running/test_watch.py::test_dead_gateway_does_not_touch_the_engine",
            "tests/unit/running/test_watch.py::test_gateway_that_stays_down_does_not_touch_the_engine",
            "tests/e2e/test_docker_gateway.py::test_stopped_gateway_is_started_again_alone",
        ),
        "assert 0 == 1",
    ),
    Fault(
        "F63",
        "the docker daemon is restarted more often than the watch may restart an engine",
        "watch: what a restart of the daemon has ended is started again, and not counted",
        (
            "tests/unit/running/test_watch.py::test_restarts_of_the_daemon_are_not_counted",
            "tests/unit/running/test_watch.py::test_daemon_that_goes_during_a_restart_is_not_counted",
            "tests/unit/running/docker/test_daemon.py::test_end_of_the_daemon_is_noticed_once",
            "tests/e2e/test_daemon_faults.py::test_stopped_daemon_is_reported_until_back",
        ),
        "restarted 2 times within an hour",
        instead="True",
    ),
    Fault(
        "F67",
        "what answers as docker is podman, docker from snap or Docker Desktop",
        "3: `docker` is podman 4.3.1, …; nothing is started, also with --force",
        (
            f"{DOCKER}::test_other_products_are_refused_by_name",
            f"{DOCKER}::test_own_engine_of_docker_is_supported",
        ),
        "DID NOT RAISE",
    ),
    Fault(
        "F68",
        "another docker daemon is selected than the one that runs the deployment",
        "up: 3: … was started by the docker daemon at …; every other verb goes to that daemon",
        (
            "tests/unit/operations/test_deployments.py::test_up_refuses_another_docker",
            "tests/unit/operations/test_deployments.py::test_verbs_go_to_recorded_docker",
        ),
        "DID NOT RAISE",
    ),
)
