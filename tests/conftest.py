"""For all tests."""

import signal

import deckard_deploy.cli.program  # noqa: F401  before a test changes sys.argv or DECKARD_PROGRAM

# scripts/test runs some in the background, where a shell ignores SIGINT, and what a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
