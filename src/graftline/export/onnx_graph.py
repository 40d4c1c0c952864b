"""From a PyTorch classifier to one ONNX graph: picture in, probabilities out."""

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import compose, parser
from torch import nn

from graftline.errors import GraftlineError
from graftline.export.preprocessing import OUTPUT, preprocessing_graph
from graftline.export.quiet import quiet
from graftline.models.edge import INPUT, PROBABILITIES
from graftline.records import TrainedModel

OPSET = 20
PIXELS, LOGITS = "pixels", "logits"
_LARGEST_BATCH = 256
_SOFTMAX = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
softmax (float[batch, {classes}] scores) => (float[batch, {classes}] {output}) {{ {output} = Softmax<axis=1>(scores) }}
"""


@dataclass(frozen=True)
class Exported:
    """What every form of an edge model is made from.

    Attributes:
        network: From `export_network`.
        record: The model's: its size, normalisation and classes.
        images: Training images, for forms that have to see some, uint8 [n, side, side, 3], n >= 1.
    """

    network: onnx.ModelProto
    record: TrainedModel
    images: np.ndarray


def make_fp32(exported: Exported) -> onnx.ModelProto:
    """Returns the whole model with the network as it was exported."""
    return join(exported.network, exported.record)


def export_network(model: nn.Module, side: int, name: str) -> onnx.ModelProto:
    """Exports the network alone: float32 [batch, 3, side, side] normalised pixels in, logits [batch, classes] out.

    Args:
        model: Classifier in eval mode, on the CPU.
        side: Width and height of its input in pixels.
        name: What to call it in an error.

    Raises:
        GraftlineError: torch.onnx cannot express the network.
    """
    example = torch.zeros(2, 3, side, side)  # two images: an example of one would be taken as a fixed batch
    try:
        with quiet():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[PIXELS],
                output_names=[LOGITS],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)},),
            )
    except Exception as error:  # the exporter raises many kinds; all mean the same to the user
        first = str(error).strip().split("\n")[0]
        raise GraftlineError(
            f"{name} cannot be exported to ONNX ({type(error).__name__}: {first}): choose another backbone"
        ) from error
    assert program is not None  # only the old exporter gives None
    network: onnx.ModelProto = program.model_proto
    _strip_traces(network)
    return network


def join(network: onnx.ModelProto, record: TrainedModel) -> onnx.ModelProto:
    """Puts preprocessing before the network and softmax after it.

    Args:
        network: From `export_network`, as it is or quantised.
        record: Its size, normalisation and classes.

    Returns:
        uint8 [batch, height, width, 3] `image` in, float32 [batch, classes] `probabilities` out, in standard operators.
    """
    opset = next(entry.version for entry in network.opset_import if entry.domain == "")
    form = {"ir_version": network.ir_version, "opset": opset}
    before = preprocessing_graph(record.image_size, record.mean, record.std, record.interpolation, **form)
    after = parser.parse_model(_SOFTMAX.format(classes=len(record.classes), output=PROBABILITIES, **form))
    whole = compose.merge_models(before, network, io_map=[(OUTPUT, PIXELS)])
    whole = compose.merge_models(whole, after, io_map=[(LOGITS, "scores")])
    assert [i.name for i in whole.graph.input] == [INPUT]
    return whole


def _strip_traces(model: onnx.ModelProto) -> None:
    """Removes the exporter's notes on nodes and values: they hold source lines and paths of this machine."""
    for part in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        model.graph,
        model,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
