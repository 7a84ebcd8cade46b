"""Rich screens and tables. A module loads at its first use."""

from deckard_deploy.system.lazy_imports import submodule_loader

# A verb loads its own module alone, and none for `--help`.
__getattr__ = submodule_loader(__name__)
