"""F21 to F32: what a server does while it starts, and after."""

from tests.faults.fault import Fault

FOLLOW = "tests/unit/startup/test_follow.py"
TRUTH = "tests/unit/startup/test_readiness_truth.py"
DIAGNOSIS = "tests/unit/startup/test_diagnosis.py"
WATCH = "tests/unit/running/test_watch.py"
FAILING = "tests/e2e/test_failing_containers.py"

FAULTS = (
    Fault(
        "F21",
        "the engine crashes while it starts",
        "6: start failed in …: the engine exited with code 3: its first fatal line; the cause; what to type; it is "
        "stopped by its second exit",
        (
            f"{FAILING}::test_failing_start_is_explained_and_stopped[crash]",
            f"{FOLLOW}::test_end_of_instance_fails_the_start",
            f"{TRUTH}::test_crash_is_reported_within_seconds",
        ),
        "assert ['deckard-x",
    ),
    Fault(
        "F22",
        "the engine crashes late, is restarted, and looks as if it ran",
        "6: the engine crashed and was restarted (restart 1)",
        (
            f"{FAILING}::test_failing_start_is_explained_and_stopped[slow-crash]",
            f"{TRUTH}::test_verdict_is_true",
        ),
        "exited with code",
    ),
    Fault(
        "F23",
        "the engine ends with code 0 while it starts",
        "6: the engine exited with code 0",
        (
            f"{FAILING}::test_failing_start_is_explained_and_stopped[end]",
            "tests/unit/running/process/test_runtime.py::test_exit_with_code_0_is_a_crash",
        ),
        "no progress in",
    ),
    Fault(
        "F24",
        "the kernel kills it for memory, in its container or on the host",
        "6: it was killed for memory; lower gpu-memory-utilization",
        (
            f"{FAILING}::test_failing_start_is_explained_and_stopped[oom]",
            f"{DIAGNOSIS}::test_end_without_error_is_named_by_exit",
        ),
        "assert 'the kernel killed it for memory' in",
        instead="False",
    ),
    Fault(
        "F25",
        "CUDA, driver, compute capability: whatever a log may say",
        "6: the first fatal line, its cause and what to type",
        (
            f"{DIAGNOSIS}::test_diagnose_names_failure",
            f"{DIAGNOSIS}::test_fix_contains_values_of_the_log",
        ),
        "assert 'unknown' ==",
    ),
    Fault(
        "F26",
        "less memory is free than gpu-memory-utilization asks for",
        "6: the numbers of vLLM's own line, and a value that fits them",
        (f"{DIAGNOSIS}::test_fix_contains_values_of_the_log",),
        "deckard-deploy up --set max-model-len='",
        instead='dict.fromkeys(groups, "")',
    ),
    Fault(
        "F27",
        "the engine hangs after it was ready, and /health says 200",
        "watch: degraded after one question without an answer, restarted after three; status says both",
        (
            f"{WATCH}::test_silent_server_is_degraded_then_restarted",
            "tests/e2e/test_process_road.py::test_watch_restarts_hanging_and_dead_engine",
        ),
        "assert ('healthy'",
        instead="(None, True)",
    ),
    Fault(
        "F28",
        "it listens before it can be used: another model, a page, a redirect, no text, an answer without end",
        "6: other server, not answering, engine dead, cannot chat or key refused, with the address and what it said",
        (f"{TRUTH}::test_verdict_is_true", f"{TRUTH}::test_there_are_forty_behaviours"),
        "verdict='ready'",
    ),
    Fault(
        "F29",
        "another process has the port, also one that binds with SO_REUSEPORT and still loads",
        "3: 127.0.0.1:8000 cannot be used: python (pid 7) listens there; before anything starts",
        (
            "tests/unit/system/test_ports.py::test_bound_port_without_listener_is_refused",
            "tests/unit/system/test_ports.py::test_listener_is_named",
            "tests/unit/running/test_deploy.py::test_used_port_stops_nothing",
        ),
        "DID NOT RAISE",
    ),
    Fault(
        "F30",
        "another server takes the port between the look and the start, and shares it (SO_REUSEPORT)",
        "6: other server: … does not list deckard-launch-…; every question goes by the launch's own name",
        (
            "tests/unit/startup/test_readiness.py::test_server_sharing_the_port_is_never_ready",
            f"{TRUTH}::test_verdict_is_true[serves our model, from another launch]",
        ),
        "assert {'deckard-31b'} == {'launch-7c1e'}",
        instead="names[1]",
    ),
    Fault(
        "F31",
        "a start takes half an hour, and says so in its log",
        "it is waited for as long as lines of progress come; 7: no progress in … for … s, when they end",
        (
            f"{FOLLOW}::test_progress_moves_the_deadline",
            f"{FOLLOW}::test_start_times_out_after_last_progress",
        ),
        "TimedOutError",
    ),
    Fault(
        "F32a",
        "the log holds what is no text, terminal sequences, a line without end; it is rotated",
        "lines without control characters, cut at 16,384; none is lost, none comes twice",
        (
            "tests/unit/system/test_text.py::test_clean_removes_controls_and_is_idempotent",
            "tests/unit/system/test_text.py::test_splitter_cuts_line_without_end",
            "tests/unit/running/process/test_bounded_log.py::test_reader_misses_nothing_across_rotations",
            "tests/e2e/test_docker_runtime.py::test_log_is_complete_and_clean",
        ),
        "Failing test case",
    ),
    Fault(
        "F32b",
        "the log's stream ends with the daemon that sent it",
        "nothing; the lines go on when the daemon is back",
        ("tests/e2e/test_daemon_faults.py::test_log_continues_after_daemon_restart",),
        "no line came any more",
    ),
)
