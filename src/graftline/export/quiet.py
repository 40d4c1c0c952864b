"""Keeps the notes of the exporter, the quantiser and the runtime from the user; their errors still come through."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnxruntime

_WARNING, _ERROR = 2, 3  # onnxruntime's severities


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Mutes warnings and log records below ERROR while the block runs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
        logging.disable(before)
