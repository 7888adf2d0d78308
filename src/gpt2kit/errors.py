"""Every failure a user can meet, each with the exit code the command line answers with.

Exit code 2 is for what was asked (a wrong flag, path or setting), 1 for what went wrong while doing it.
"""


class Gpt2kitError(Exception):
    """A failure that is explained to the user in words: which value, where, and what to do about it."""

    exit_code = 1


class UsageError(Gpt2kitError):
    """What was asked cannot be done: a setting out of range, a path that is not there, an unknown name."""

    exit_code = 2


class MissingExtraError(UsageError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class DataError(Gpt2kitError):
    """Text, token or prompt files that cannot be read or trusted."""


class ModelError(Gpt2kitError):
    """A model folder that cannot be read or trusted, or that lies about its contents."""


class TrainingError(Gpt2kitError):
    """A training that cannot go on: out of memory at the smallest micro-batch, or it keeps diverging."""


class DiskError(Gpt2kitError):
    """Writing failed, for example because the disk is full; what was there before is intact."""


class NetworkError(Gpt2kitError):
    """Something the user named has to be fetched and the network does not answer."""
