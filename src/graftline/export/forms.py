"""The forms of an edge model, one a line. A new form is a file that makes it, and its line here.

All else goes through this table: what is made, measured, decided, kept, written into the records and shown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from graftline.export.int8 import make_int8
from graftline.export.latency import Runner
from graftline.export.onnx_graph import Exported, make_fp32
from graftline.models.edge import EdgeModel


@dataclass(frozen=True)
class Form:
    """One form of an edge model.

    Attributes:
        name: As records, tables and reasons call it.
        file: Its file in the bundle.
        precision: Of the network's numbers, for the file's metadata and the page.
        make: Makes the whole model, preprocessing and softmax included. May raise anything: then there is no such form,
            and the bundle's record says why.
        run: Opens the file as it is run where it is deployed; several threads may call the result.
    """

    name: str
    file: str
    precision: str
    make: Callable[[Exported], onnx.ModelProto]
    run: Callable[[Path], Runner] = EdgeModel


FORMS: tuple[Form, ...] = (  # the first is the reference: always made and kept, the others are held against it
    Form("fp32", "model.onnx", "float32", make_fp32),
    Form("int8", "model.int8.onnx", "int8", make_int8),
)
