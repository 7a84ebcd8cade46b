"""For all tests."""

import signal

import hypothesis

import deckard_deploy.cli.program  # noqa: F401  before a test changes sys.argv or DECKARD_PROGRAM

# scripts/test runs some in the background, where a shell ignores SIGINT, and what a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine fails no test: an example has 200 ms by default, and the making of examples a limit too.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")
