"""From a hardware profile to a verified, running vLLM endpoint."""

__version__ = "0.2.0"
