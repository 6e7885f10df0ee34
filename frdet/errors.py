"""Errors that a user can correct. The command-line tools print only their message, without a traceback."""

import difflib
import inspect
from collections.abc import Iterable


def defined(cls: type) -> str:
    """The name of a class, and the file of a user that defines it if there is one: a notebook has none."""
    if cls.__module__.partition('.')[0] == 'frdet':
        return cls.__name__
    try:
        return f'{cls.__name__} in {inspect.getsourcefile(cls)}'
    except (TypeError, OSError):
        return cls.__name__


#: Share of letters that two names have in common in the same order, from which a message proposes one for the other:
#: more than two thirds, which is what triangle and ring have.
_NEAR = 0.67
#: The share from which a name that would be accepted is refused as a misspelling. House and mouse have 0.8.
_SURE = 0.82


def near_names(name: str, names: Iterable[str], *, sure: bool = False) -> list[str]:
    """Up to three of ``names`` that ``name`` may misspell, the most similar first; capital letters do not matter.

    Args:
        sure: only names so similar that ``name`` is surely a misspelling.
    """
    spelt: dict[str, list[str]] = {}
    for one in names:
        spelt.setdefault(one.lower(), []).append(one)
    near = difflib.get_close_matches(name.lower(), spelt, n=3, cutoff=_SURE if sure else _NEAR)
    return [one for lower in near for one in spelt[lower]][:3]


def did_you_mean(name: str, names: Iterable[str], *, sure: bool = False) -> str:
    """The end of a message, ``did you mean a or b?``, with the ``near_names``; '' without any."""
    near = near_names(name, names, sure=sure)
    return f'did you mean {" or ".join(near)}?' if near else ''


class UserError(Exception):
    """Base of all errors that are caused by the user's input: a config, a path, the content of a file.

    The message says what was found, what was expected and what to do, in this order, in one or two lines.
    """

    def __str__(self) -> str:
        """The message alone. PyTorch puts a traceback before it if a worker of a data loader raised the error."""
        text = super().__str__()
        _, found, message = text.rpartition(f'\n{type(self).__module__}.{type(self).__qualname__}: ')
        return message.rstrip() if found and text.startswith('Caught ') else text


class ConfigError(UserError):
    """A config, an override or a component's arguments are wrong."""


class DataError(UserError):
    """A data set, an annotation file or an image is missing or wrong."""


class BrokenImageError(DataError):
    """An image is missing or cannot be decoded. Training goes on without it; see ``DetDataset``."""


class ImageSizeError(DataError):
    """An image has another size than its record says."""


class CheckpointError(UserError):
    """A checkpoint or a file of pretrained weights is missing, unreadable or does not fit."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a training. The message says where it stopped.

    Attributes:
        checkpoint: the file to go on from; None if this run has saved none.
    """

    def __init__(self, message: str, checkpoint: str | None = None):
        super().__init__(message)
        self.checkpoint = checkpoint


class ExportError(UserError):
    """A model cannot be exported, or not to the given file."""
