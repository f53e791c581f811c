"""One kind of error for everything a user can cause: one sentence that names the thing, what was expected and the cure."""


class OtoscopeError(Exception):
    """Base of every error that is the input's fault, not ours. The message is one clear sentence.

    The command line prints it after ``error:`` and exits with ``exit_code``; ``--debug`` adds the traceback.
    """

    exit_code = 2


class AudioError(OtoscopeError):
    """A sound that cannot be used as it is: missing, empty, not audio, not finite, of the wrong length."""


class ModelError(OtoscopeError):
    """A model that cannot be found, fetched or loaded, or that lacks what was asked of it."""


class SiteError(OtoscopeError):
    """A site, layer, head, neuron or position that the model does not have."""


class TaskError(OtoscopeError):
    """A pair, answer or manifest that cannot be scored: unequal lengths, colliding tokens, missing columns."""


class RunError(OtoscopeError):
    """A run directory that cannot be written, read or resumed."""
