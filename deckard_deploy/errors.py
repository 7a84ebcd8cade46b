"""The errors that a user can meet, and the exit code of each class.

    DeployError
    ├── BadInputError          2    usage, YAML, flags: nothing was written, nothing was started
    ├── EnvironmentUnfitError  3    docker, driver, port, memory, disk of this host
    ├── IntegrityError         4    a hash, a patch base, an attestation
    ├── NetworkError           5    hub, registry, package index
    ├── StartFailedError       6    the engine did not come up; the previous release is back
    ├── TimedOutError          7    a deadline passed while nothing advanced
    ├── DeploymentBusyError    8    another deckard-deploy holds the deployment
    ├── DoesNotFitError        9    the plan needs more memory than the machine has
    └── RegressionError       10    a benchmark is slower than allowed

0 is success, 1 is a bug in this program (its traceback is kept), 130 is an interrupt.
"""


class DeployError(Exception):
    """An expected failure: a message of one line that names the value, and in `hint` the next command."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadInputError(DeployError):
    """A usage, YAML or flag error."""

    exit_code = 2


class EnvironmentUnfitError(DeployError):
    """This host lacks something that the plan needs."""

    exit_code = 3


class IntegrityError(DeployError):
    """A file is not the expected file."""

    exit_code = 4


class NetworkError(DeployError):
    """A remote end did not answer, or answered with an error."""

    exit_code = 5


class StartFailedError(DeployError):
    """The engine stopped, crashed or was refused before it was ready."""

    exit_code = 6


class TimedOutError(DeployError):
    """A deadline passed."""

    exit_code = 7


class DeploymentBusyError(DeployError):
    """Another process holds the deployment's lock."""

    exit_code = 8


class DoesNotFitError(DeployError):
    """The plan needs more memory than the hardware has."""

    exit_code = 9


class RegressionError(DeployError):
    """A benchmark is slower than its baseline, significantly and by more than allowed."""

    exit_code = 10
