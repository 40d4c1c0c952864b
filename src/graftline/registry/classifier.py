"""A registered edge model, run with onnxruntime: what answers is the file that ships."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

from graftline.errors import GraftlineError


class Classifier:
    """An edge model in onnxruntime on one CPU thread; may be shared by several threads.

    Args:
        file: An ONNX file as `export_onnx` writes it: uint8 [batch, H, W, 3] in, probabilities [batch, classes] out,
            class names as JSON in the metadata `labels`.

    Raises:
        GraftlineError: The file does not run.
    """

    def __init__(self, file: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        try:
            self._session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            self._classes = json.loads(self._session.get_modelmeta().custom_metadata_map["labels"])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            reason = str(error).partition("\n")[0]
            raise GraftlineError(f"{file.name} is not an edge model that onnxruntime can run: {reason}") from error
        self._input = self._session.get_inputs()[0].name

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Returns float32 [classes] for one image, uint8 [height, width, 3] of any size."""
        (rows,) = self._session.run(None, {self._input: image[None]})
        return rows[0]

    def top_class(self, image: np.ndarray) -> str:
        """Returns the name of the most probable class of one image."""
        return self._classes[int(self.probabilities(image).argmax())]
