"""A step as a task of a pipeline, in a process or pod of its own, which a cluster tries again after a failure.

Kubeflow Pipelines cannot tell a machine that was taken away from a mistake in the data: it tries again whatever failed.
So each try knows the name that Argo Workflows gives it, `RUN.fine-tune(1)` for the second one; one that fails by a
mistake leaves a note in the store, and those after it end at once.
"""

import atexit
import gc
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from graftline.errors import GraftlineError, StoreError
from graftline.files import sha256_bytes
from graftline.progress import say
from graftline.storage import Store
from graftline.storage.connect import lasting_store

TRY = "GRAFTLINE_TRY"
# Where Kubernetes finds a try's name; Argo Workflows writes it on every pod.
TRY_ON_POD = "metadata.annotations['workflows.argoproj.io/node-name']"

_NAME = re.compile(r"(.+)\((\d+)\)")
# What Python raises for mistakes in a program; all else (RuntimeError, OSError) may be a machine's or the network's.
_MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    TypeError,
    ValueError,
)

P = ParamSpec("P")
T = TypeVar("T")


class FailedForGoodError(GraftlineError):
    """An earlier try of this task failed by a mistake, so this one was not made."""


def as_task(step: Callable[P, T]) -> Callable[P, T]:
    """Returns a step that is all that its process does, and is not tried again after a mistake.

    A mistake is a GraftlineError other than those that may pass, or an error of Python's that programs make. What was
    killed, ran out of memory or met a failing network, device or machine is tried again. Where no cluster names the
    try (`GRAFTLINE_TRY`), or there is no store to leave a note in, the step is returned as it is.
    """
    # Python would look through all that torch and timm have made once more before it ends.
    atexit.register(gc.freeze)
    found = _NAME.fullmatch(os.environ.get(TRY, ""))
    store = lasting_store() if found else None
    if not (found and store):
        return step
    note, number = _Note(store, found[1]), int(found[2])

    @wraps(step)
    def attempt(*arguments: P.args, **options: P.kwargs) -> T:
        note.check(number)
        try:
            return step(*arguments, **options)
        except Exception as error:
            if _is_mistake(error):
                note.leave(number, error)
            raise

    return attempt


def _is_mistake(error: Exception) -> bool:
    return not error.may_pass if isinstance(error, GraftlineError) else isinstance(error, _MISTAKES)


@dataclass(frozen=True)
class _Note:
    """What a task's tries leave for those after them.

    Attributes:
        store: Where it lies.
        task: The task's name in its run.
    """

    store: Store
    task: str

    @property
    def _key(self) -> str:
        return f"tries/{sha256_bytes(self.task.encode())[:16]}.txt"

    def check(self, number: int) -> None:
        """Ends this try if an earlier one has left a note; the first try, also of a run made anew, removes it.

        Raises:
            FailedForGoodError: There is one.
            StoreError: The store refuses or does not answer.
        """
        if number == 0:
            self.store.delete(self._key)
        elif self.store.exists(self._key):
            raise FailedForGoodError(self.store.read_text(self._key))

    def leave(self, number: int, error: Exception) -> None:
        """Tells later tries why they need not be made."""
        reason = str(error) if isinstance(error, GraftlineError) else f"{type(error).__name__}: {error}"
        try:
            self.store.write_text(f"not tried again after a mistake in try {number + 1}: {reason}", self._key)
        except StoreError as refusal:
            say(f"this task may be tried again in vain: {refusal}")
