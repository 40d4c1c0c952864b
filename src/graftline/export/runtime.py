"""Running the bundle's files with onnxruntime, exactly as a deployed one runs: one picture, one thread."""

from pathlib import Path

import numpy as np
import onnxruntime

from graftline.export.onnx_graph import PROBABILITIES
from graftline.export.preprocessing import INPUT

_ERROR = 3  # onnxruntime's severity


class EdgeModel:
    """An ONNX file of ours, opened on one CPU thread; may be shared by several threads.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = _ERROR
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 [batch, classes] probabilities of uint8 [batch, height, width, 3] pictures of any size."""
        return self._session.run([PROBABILITIES], {INPUT: images})[0]
