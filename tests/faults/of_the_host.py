"""F33 to F60: docker, other programs, and the machine."""

from tests.faults.fault import Fault, Guard

DOCKER = "tests/unit/running/test_docker_engine.py"
DEPLOY = "tests/unit/running/test_deploy.py"
RULES = "tests/unit/doctor/test_rules.py::test_a_rule_finds_it_and_is_content_without"

AWAY = "tests/e2e/test_daemon_faults.py::test_it_is_said_while_it_is_away_and_answers_when_it_is_back"

FAULTS = (
    Fault(
        "F33",
        "the docker daemon is ended, and started again",
        "3: the docker daemon at … is not running; watch: degraded, and no restart is counted; one container answers "
        "when it is back",
        (f"{AWAY}[SIGTERM]", "tests/e2e/test_daemon_faults.py::test_up_is_told_and_the_next_one_goes_on"),
        Guard("running/docker_engine.py", "self._require_daemon()  # it may have gone", "# it may have gone"),
        "assert 'is not running' in",
    ),
    Fault(
        "F34",
        "the docker daemon is killed, and started again",
        "the same; what it left behind is started again by watch, or by the next up",
        (f"{AWAY}[SIGKILL]", "tests/e2e/test_daemon_faults.py::test_up_is_told_and_the_next_one_goes_on"),
        Guard("running/watch.py", "except (EnvironmentUnfitError, IntegrityError) as", "except IntegrityError as"),
        "errors.EnvironmentUnfitError",
    ),
    Fault(
        "F35",
        "the docker daemon hangs",
        "3: the docker daemon at … did not answer within 10 s",
        (
            "tests/e2e/test_daemon_faults.py::test_a_daemon_that_hangs_is_not_waited_for",
            f"{DOCKER}::test_a_daemon_that_hangs_is_not_waited_for_for_ever",
        ),
        Guard("running/docker_engine.py", "timeout=int(CALL_TIMEOUT_S)", "timeout=3600"),
        "it still waits",
    ),
    Fault(
        "F36",
        "no docker, no right to talk to it, an engine on another machine, no such context",
        "3: docker talks to ssh://…; the weights on this machine cannot be mounted there, or what else is the case",
        (
            f"{DOCKER}::test_an_engine_elsewhere_is_refused",
            f"{DOCKER}::test_no_docker",
            f"{DOCKER}::test_a_daemon_that_is_not_there",
            f"{DOCKER}::test_a_daemon_that_is_not_ours_to_talk_to",
            f"{DOCKER}::test_a_context_that_is_not_there_is_said_in_dockers_words",
        ),
        Guard("running/docker_engine.py", 'if not endpoint.startswith("unix://"):', "if False:"),
        "cannot be mounted there",
    ),
    Fault(
        "F37",
        "docker has no NVIDIA runtime and no CDI specification",
        "3: docker's runtimes are runc; install nvidia-container-toolkit",
        (f"{RULES}[gpu-runtime-fail-docker's runtimes ar]",),
        Guard("doctor/rules_docker.py", 'if any("nvidia" in name for name in facts.docker.runtimes):', "if True:"),
        "nvidia runtime",
    ),
    Fault(
        "F38",
        "many `up` at once",
        "8: deployment … is held by pid 7, `deckard-deploy up`, since …",
        (
            "tests/unit/running/test_crowd.py::test_one_starts_and_the_others_leave",
            "tests/unit/running/test_lock.py::test_of_many_at_once_one_wins_and_all_others_are_told",
        ),
        Guard("running/lock.py", "        lock.acquire()\n", "        pass\n"),
        "[0, 3, 3, 3,",
    ),
    Fault(
        "F39",
        "an older plan runs",
        "change   OLD -> NEW and every difference; it is replaced only when the plan has changed",
        (f"{DEPLOY}::test_what_has_to_be_done_and_why", f"{DEPLOY}::test_a_new_plan_takes_the_place_of_the_old"),
        Guard("running/deploy.py", "if observed.plan_hash != desired:", "if False:"),
        "assert 'nothing' == 'replace'",
    ),
    Fault(
        "F40",
        "somebody else's container or project has the name",
        "3: container … of project … was not started from …; it is left alone",
        (
            "tests/e2e/test_docker_runtime.py::test_somebody_elses_project_of_that_name_is_left_alone",
            "tests/e2e/test_docker_runtime.py::test_somebody_elses_container_of_that_name_is_left_alone",
        ),
        Guard("running/docker_runtime.py", "            if not self._is_ours(container):\n", "            if False:\n"),
        "docker-proxy",
    ),
    Fault(
        "F41",
        "kill -9 of `up` at any moment",
        "nothing; the next `up` goes on, with one server and nothing half written",
        (
            f"{DEPLOY}::test_kills_leave_nothing_half_and_the_next_up_converges[what1]",
            f"{DEPLOY}::test_kills_leave_nothing_half_and_the_next_up_converges[what0]",
            "tests/e2e/test_docker_runtime.py::test_up_after_a_kill_of_up_and_compose_leaves_one_container",
        ),
        Guard("running/files.py", "        temporary.replace(path)\n", "        path.write_bytes(data)\n"),
        "violations",
    ),
    Fault(
        "F42",
        "^C while `up` waits",
        "130: plan … still runs and is not proven ready; go on with up, or stop it with down",
        (f"{DEPLOY}::test_an_interrupt_leaves_it_running_and_the_next_up_goes_on",),
        Guard(
            "running/deploy.py",
            "        return _run(site, release, launch)\n    except DeployError as error:",
            "        return _run(site, release, launch)\n    except BaseException as error:",
        ),
        "'KeyboardInterrupt' object has no attribute",
    ),
    Fault(
        "F44",
        "a machine with unified memory has too little for the start, and would freeze",
        "3: 97.0 GiB available, 97.4 GiB wanted; at most two restarts, on failure alone",
        (
            f"{RULES}[memory-available-fail-97.0 GiB available, ]",
            f"{RULES}[footprint-fail-28.0 GiB before any ]",
            "tests/unit/doctor/test_advisories.py::test_restarts_are_bounded",
        ),
        Guard(
            "doctor/rules_memory.py",
            "    if free >= wanted:\n        return warn(",
            "    if True:\n        return warn(",
        ),
        "Severity.WARN",
    ),
    Fault(
        "F45",
        "the host is rebooted in between",
        "watch starts the current release; what ran before the boot is not mistaken for it",
        (
            "tests/unit/running/test_process_identity.py::test_a_recycled_pid_is_somebody_elses[change1]",
            "tests/unit/running/test_watch.py::test_after_a_reboot_it_starts_what_was_current",
        ),
        Guard("running/process_identity.py", " and process.boot == boot_id()", ""),
        "assert not True",
    ),
    Fault(
        "F50",
        "a patch is mounted where the engine does not look, or is not the patch",
        "4: the original … is in use, not patch eagle: it was mounted somewhere else (Python 3.12)",
        (
            "tests/unit/patching/test_attestation.py::test_a_mount_that_did_not_take_is_found",
            "tests/unit/patching/test_builds.py::test_a_base_that_differs_anywhere_is_refused_and_nothing_is_written",
        ),
        Guard("patching/attestation.py", "    if digest != patch.sha256:\n", "    if False:\n"),
        "DID NOT RAISE",
    ),
    Fault(
        "F51",
        "the image's tag has moved since it was locked",
        "4: … is sha256:… here, and deckard.lock holds it to sha256:…",
        (
            "tests/e2e/test_registry.py::test_up_is_held_to_the_digest_in_the_lock",
            "tests/e2e/test_registry.py::test_lock_asks_the_registry_what_a_tag_is",
        ),
        Guard("cli/prepare.py", "    if locked not in found:\n", "    if False:\n"),
        "DID NOT RAISE",
    ),
    Fault(
        "F53",
        "docker compose is missing, or is docker-compose 1",
        "3: docker has no compose plugin; /usr/bin/docker-compose is not the plugin that is meant",
        (
            f"{DOCKER}::test_an_older_compose_is_refused",
            f"{DOCKER}::test_compose_one_is_told_from_the_plugin",
            f"{DOCKER}::test_compose_two_and_later_will_do",
        ),
        Guard("running/docker_engine.py", "if (int(parts[1]), int(parts[2])) < OLDEST_COMPOSE:", "if False:"),
        "DID NOT RAISE",
    ),
    Fault(
        "F57",
        "the terminal goes away (SIGHUP)",
        "130, or nothing: what runs goes on; wait takes up the waiting",
        ("tests/unit/cli/test_main.py::test_a_signal_that_asks_to_end_is_an_interrupt",),
        Guard("cli/main.py", "for number in (signal.SIGTERM, signal.SIGHUP):", "for number in (signal.SIGTERM,):"),
        "assert (-1, '')",
    ),
    Fault(
        "F58",
        "a proxy variable is set, and no_proxy does not name this host",
        "nothing: no question to the endpoint goes through a proxy; doctor warns of clients that would",
        (
            "tests/unit/startup/test_readiness.py::test_no_proxy_is_used",
            f"{RULES}[proxy-warn-https_proxy set]",
        ),
        Guard("connection.py", "made.trust_env = False", "pass"),
        "Left contains 2 more items",
    ),
)
