"""The one exception a user sees as a single line: it names the thing, the reason and the remedy."""


class GraftlineError(Exception):
    """A mistake of the user's or of the surroundings, with a message that says how to mend it.

    The command line prints the message as one line and exits with 1; `--debug` shows the traceback.

    Attributes:
        may_pass: Whether the same call may succeed later, as a machine or the network failed, not the user.
    """

    may_pass = False


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises a GraftlineError unless `value` is one of `choices`: pipelines hand over plain strings, unchecked."""
    if value not in choices:
        raise GraftlineError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")


def check_seed(seed: int) -> None:
    """Raises a GraftlineError unless `seed` is one that every generator takes."""
    if not 0 <= seed < 2**32:
        raise GraftlineError(f"seed is {seed}: give a whole number from 0 to {2**32 - 1}")


class DataError(GraftlineError):
    """The images or the manifest cannot be used as they are."""


class StoreError(GraftlineError):
    """The object store refused, is not there, or does not answer."""

    may_pass = True


class RegistryError(GraftlineError):
    """The model registry refused, is not there, or does not answer."""

    may_pass = True


class WeightsError(GraftlineError):
    """Pretrained weights are not at hand or are not what they should be."""


class FrozenMovedError(GraftlineError):
    """A parameter or buffer that was declared frozen changed during training."""
