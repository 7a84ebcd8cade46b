"""From a hardware profile to a verified, running vLLM endpoint."""

__version__ = "0.1.0"
