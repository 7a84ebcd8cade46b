"""For all tests."""

import signal

# scripts/test runs some in the background, where a shell ignores SIGINT, and what a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
