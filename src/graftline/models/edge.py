"""Running an edge model with onnxruntime, exactly as a deployed one runs: one picture, one thread."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime

from graftline.data.decode import decode_rgb
from graftline.data.parallel import map_threads
from graftline.errors import DataError, GraftlineError
from graftline.progress import track

INPUT, PROBABILITIES = "image", "probabilities"
LABELS = "labels"
_REMEDY = "give a file that `graftline export_onnx` wrote"
_ERROR = 3  # onnxruntime's severity


class EdgeModel:
    """An ONNX file of ours, opened on one CPU thread; may be shared by several threads.

    Args:
        path: The file.

    Raises:
        GraftlineError: It does not run, or is not one of ours.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = _ERROR
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            reason = str(error).partition("\n")[0]
            raise GraftlineError(f"{path} is not an edge model that onnxruntime can run: {reason}") from error
        names = [[node.name for node in nodes] for nodes in (self._session.get_inputs(), self._session.get_outputs())]
        if names != [[INPUT], [PROBABILITIES]]:
            raise GraftlineError(f"{path} takes {names[0]} and gives {names[1]}: {_REMEDY}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 [batch, classes] probabilities of uint8 [batch, height, width, 3] pictures of any size."""
        return self._session.run([PROBABILITIES], {INPUT: images})[0]

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the outputs.

        Raises:
            GraftlineError: The file does not name them.
        """
        try:
            return json.loads(self._session.get_modelmeta().custom_metadata_map.get(LABELS, ""))
        except ValueError as error:
            raise GraftlineError(f"{self._path} does not name its classes: {_REMEDY}") from error

    def top_class(self, image: np.ndarray) -> str:
        """Returns the name of the most probable class of one image, uint8 [height, width, 3]."""
        return self.classes[int(self(image[None])[0].argmax())]


def answer_files(model: EdgeModel, paths: Sequence[Path], title: str) -> Iterator[np.ndarray | str]:
    """Asks a model about image files, on all cores.

    Args:
        model: Which.
        paths: Files of any kind and size that `decode_rgb` reads.
        title: What is being done, for the progress bar.

    Yields:
        For each file in order float32 [classes] probabilities, or why it cannot be read.
    """

    def answer(path: Path) -> np.ndarray | str:
        try:
            return model(decode_rgb(path.read_bytes())[None])[0]
        except DataError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    return track(map_threads(answer, paths), title, total=len(paths))
