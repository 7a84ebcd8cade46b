"""Faults of people, other programs and the machine: F38 to F60 without those of docker."""

from tests.faults.fault import Fault

DEPLOY = "tests/unit/running/test_deploy.py"
KILLS = "tests/unit/running/test_deploy_kills.py"
IDENTITY = "tests/unit/system/test_processes.py"
RULES = "tests/unit/doctor/test_judge.py::test_rule_finds_the_fault_and_accepts_the_rest"

FAULTS = (
    Fault(
        "F38",
        "many `up` at once",
        "8: deployment … is held by pid 7, `deckard-deploy up`, since …",
        (
            "tests/unit/running/test_lock_concurrent_ups.py::test_one_up_starts_and_the_others_exit",
            "tests/unit/running/test_lock.py::test_one_of_many_gets_the_lock",
        ),
        "[0, 3, 3, 3,",
    ),
    Fault(
        "F41",
        "kill -9 of `up` at any moment",
        "nothing; the next `up` goes on, with one server and nothing half written",
        (
            f"{KILLS}::test_up_converges_after_kills[what1]",
            f"{KILLS}::test_up_converges_after_kills[what0]",
            "tests/e2e/test_docker_runtime.py::test_up_after_killed_up_leaves_one_container",
        ),
        "violations",
        instead="path.write_bytes(data)",
    ),
    Fault(
        "F42",
        "^C while `up` waits",
        "130: plan … still runs and is not proven ready; go on with up, or stop it with down",
        (f"{DEPLOY}::test_up_resumes_after_interrupt",),
        "'KeyboardInterrupt' object has no attribute",
        instead="BaseException",
    ),
    Fault(
        "F43",
        "what was stopped still holds the port and the GPU's memory",
        "nothing; a process is waited for until the kernel has torn it down",
        (
            f"{IDENTITY}::test_wait_for_exits_until_port_is_free",
            "tests/unit/startup/test_diagnosis.py::test_diagnose_names_failure[free-memory]",
        ),
        "cannot be used",
        instead="True",
    ),
    Fault(
        "F44",
        "a machine with unified memory has too little for the start, and would freeze",
        "3: 97.0 GiB available, 97.4 GiB wanted; at most two restarts, on failure alone",
        (
            f"{RULES}[memory-available-fail-97.0 GiB available, ]",
            f"{RULES}[footprint-fail-28.0 GiB before any ]",
            "tests/unit/doctor/rules/test_engine_advisories.py::test_restarts_are_bounded",
        ),
        "Severity.WARN",
        instead="True",
    ),
    Fault(
        "F45",
        "the host is rebooted in between",
        "watch starts the current release; what ran before the boot is not mistaken for it",
        (
            f"{IDENTITY}::test_reused_pid_is_another_process[change1]",
            "tests/unit/running/test_watch.py::test_watch_after_reboot_starts_current",
        ),
        "assert not True",
        instead="True",
    ),
    Fault(
        "F46",
        "the date jumps by ten years and back, while a start is followed and a server is watched",
        "nothing: waits and the two restarts an hour go by the monotonic clock; doctor says that no time is set",
        (
            "tests/e2e/test_clock.py::test_clock_jump_keeps_timeouts",
            "tests/unit/running/test_watch.py::test_old_restarts_do_not_count",
            f"{RULES}[clock-warn-not synchronized]",
        ),
        "TimedOutError",
        instead="time.time",
    ),
    Fault(
        "F47",
        "no terminal, a dumb one, 20 columns, no colour, LANG=C; a closed stdin, stdout or stderr; a reader that left",
        "plain lines; 0, or 141 when the reader left",
        (
            "tests/unit/cli/test_terminals.py::test_closed_stream_is_no_bug",
            "tests/unit/cli/test_terminals.py::test_pipe_gets_no_terminal_sequence",
            "tests/unit/cli/test_terminals.py::test_terminal_gets_text",
            "tests/unit/cli/test_main.py::test_closed_reader_ends_run_silently",
            "tests/unit/cli/test_main.py::test_full_disk_under_stdout_is_one_line",
        ),
        "assert b'Traceback' not in",
    ),
    Fault(
        "F48",
        "the weights may not be read by the user that the container runs as",
        "3: … may not be read by others, and the engine's container runs as another user; chmod -R a+rX …",
        (
            "tests/unit/operations/test_engine.py::test_unreadable_weights_are_named",
            "tests/e2e/test_container_safety.py::test_capless_root_needs_open_caches",
        ),
        "DID NOT RAISE",
    ),
    Fault(
        "F49",
        "the weights change while they are served",
        "status: weights changed deckard-31b/model.safetensors",
        (
            "tests/unit/operations/test_status.py::test_changed_weights_names_changed_file",
            "tests/unit/cli/test_verify.py::test_flipped_bit_is_named",
        ),
        "assert None ==",
        instead="True",
    ),
    Fault(
        "F54",
        "parts, locks and temporary files of runs that were killed",
        "nothing; the next run of the same command goes on with them, or removes them",
        (
            "tests/unit/system/test_files.py::test_clear_leftovers_removes_only_leftovers",
            "tests/unit/system/test_files.py::test_clear_leftovers_keeps_files_of_live_writer",
            "tests/unit/running/test_layout.py::test_create_clears_leftovers_of_killed_purge",
            "tests/unit/running/test_lock.py::test_killed_holder_releases_the_lock",
        ),
        "assert ['.tmp-",
    ),
    Fault(
        "F55",
        "HOME or XDG_DATA_HOME with a space, a new line, bytes that are no text; relative, read-only, too long",
        "nothing, or: 3 or 4 and one line that names it",
        (
            "tests/unit/cli/test_home.py::test_unwritable_home_is_one_line",
            "tests/unit/cli/test_home.py::test_folder_of_any_name_is_used",
            "tests/unit/cli/test_home.py::test_relative_home_is_below_working_folder",
            "tests/unit/cli/test_home.py::test_missing_home_is_created",
        ),
        "Not a directory",
    ),
    Fault(
        "F56",
        "ulimit allows no larger file, or no more open files",
        "3: cannot write …: File too large; ulimit -f",
        ("tests/unit/weights/test_pull_limits.py::test_pull_names_ulimit_and_resumes_without_it",),
        "names(3, 'File too large', 'ulimit -')",
    ),
    Fault(
        "F57",
        "the terminal goes away (SIGHUP)",
        "130, or nothing from watch; what runs goes on, and wait takes up the waiting",
        (
            "tests/unit/running/process/test_runtime.py::test_sighup_ends_nothing",
            "tests/unit/cli/test_main.py::test_ending_signal_is_an_interrupt",
        ),
        "assert not True",
    ),
    Fault(
        "F58",
        "a proxy variable is set, and no_proxy does not name this host",
        "nothing: no question to the endpoint goes through a proxy; doctor warns of clients that would",
        (
            "tests/unit/startup/test_readiness.py::test_probe_uses_no_proxy",
            f"{RULES}[proxy-warn-http_proxy set, and ]",
        ),
        "Left contains 2 more items",
    ),
    Fault(
        "F59",
        "localhost is ::1 first, and another server listens there",
        "nothing: a plan's address is a number, 127.0.0.1 unless another was chosen",
        (
            "tests/unit/planning/test_plan.py::test_the_base_url_is_one_that_this_host_can_reach",
            "tests/unit/startup/test_readiness.py::test_server_on_other_loopback_is_never_asked",
            "tests/unit/system/test_ports.py::test_listener_is_named",
        ),
        "http://localhost",
        instead='"localhost"',
    ),
    Fault(
        "F60",
        "the drafter has another vocabulary than the model, or drafts nothing that is right",
        "4: the drafter in … has a vocabulary of 512 tokens, and the model one of 262144; 6: the drafter does not fit",
        (
            "tests/unit/operations/test_weights.py::test_drafter_with_other_vocabulary_is_refused",
            "tests/unit/weights/test_inspection.py::test_drafter_with_other_vocabulary_is_a_fault",
            "tests/e2e/test_drafters.py::test_unfit_drafter_is_refused",
        ),
        "DID NOT RAISE",
    ),
    Fault(
        "F64",
        "what the release before needs is gone when it is rolled back to",
        "3: … does not exist, and release … needs it; nothing was stopped",
        ("tests/unit/operations/test_rollback.py::test_rollback_looks_before_it_stops",),
        "DID NOT RAISE",
    ),
    Fault(
        "F65",
        "a new version of this tool plans other flags for the same choice",
        "running  …, and answers; version … planned it, and … plans … for the same choice: --upgrade replaces it",
        (
            "tests/unit/operations/test_up.py::test_other_plan_for_the_same_choice_is_left_alone",
            "tests/unit/operations/test_up.py::test_release_without_recorded_choice_is_left_alone",
            "tests/unit/operations/test_up.py::test_otherwise_rendered_release_is_left_alone",
        ),
        "assert 'replace' == 'nothing'",
        instead="None",
    ),
    Fault(
        "F66",
        "the first `up` of a deployment is refused",
        "the error alone: no deployment is left that `status` and every other verb would ask about",
        (
            "tests/unit/operations/test_up.py::test_refused_up_leaves_no_deployment",
            "tests/unit/operations/test_up.py::test_refused_up_keeps_an_earlier_deployment",
        ),
        "assert not True",
    ),
    Fault(
        "F69",
        "a machine with unified memory runs out of it while it serves, and would freeze",
        "watch: memory … GiB available, then: the engine is stopped: … MiB of memory are available, and below …",
        (
            "tests/unit/operations/test_watch.py::test_memory_below_the_floor_ends_the_wait",
            "tests/unit/operations/test_host_guard.py::test_shortage_is_warned_of_and_then_certain",
            "tests/unit/running/test_watch.py::test_engine_is_stopped_before_memory_is_gone",
        ),
        "assert (False, 'restart') == (False, 'stop')",
    ),
    Fault(
        "F70",
        "^C while `switch` has stopped one deployment, and the other is still starting",
        "interrupted: … is stopped, and … is started again",
        ("tests/unit/operations/test_switch.py::test_interrupt_brings_first_back",),
        "assert None",
    ),
)
