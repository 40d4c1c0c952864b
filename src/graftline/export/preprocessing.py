"""The preprocessing as plain ONNX operators, so that the deployed file takes pictures as they are.

`Resize` works on uint8 as Pillow does (antialiased, fixed point, rounded after each direction): of photographs fewer
than one value in a thousand differs from Pillow's, by 1 of 255. Where the height shrinks while the width grows, Pillow
takes the two directions in the other order: up to a fifth of the values differ, by 1 or 2. Only standard operators are
used: the file runs wherever onnxruntime does, the browser's WebAssembly build included.
"""

from collections.abc import Sequence

import onnx
from onnx import parser

from graftline.models.edge import INPUT

OUTPUT = "normalised"
_FILTERS = {"bicubic": 'mode="cubic", cubic_coeff_a=-0.5', "bilinear": 'mode="linear"'}
_GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
preprocessing (uint8[batch, height, width, 3] {input}) => (float[batch, 3, {side}, {side}] {output})
<int64[2] size = {{{side}, {side}}}, float[3] scale = {{{scale}}}, float[3] shift = {{{shift}}}>
{{
  square = Resize<axes=[1, 2], antialias=1, exclude_outside=1, {filter}>({input}, , , size)
  values = Cast<to=1>(square)
  scaled = Mul(values, scale)
  shifted = Sub(scaled, shift)
  {output} = Transpose<perm=[0, 3, 1, 2]>(shifted)
}}
"""


def preprocessing_graph(
    side: int, mean: Sequence[float], std: Sequence[float], interpolation: str, *, ir_version: int, opset: int
) -> onnx.ModelProto:
    """Builds uint8 [batch, height, width, 3] -> float32 [batch, 3, side, side], the whole image resized and normalised.

    Args:
        side: Width and height of the network's input in pixels.
        mean: Per-channel mean of RGB in [0, 1].
        std: Per-channel divisor.
        interpolation: "bicubic" or "bilinear".
        ir_version: ONNX IR version of the network it will be joined to.
        opset: Operator set of that network, 18 or newer.
    """
    text = _GRAPH.format(
        input=INPUT,
        output=OUTPUT,
        side=side,
        scale=", ".join(repr(1 / (255 * float(s))) for s in std),
        shift=", ".join(repr(float(m) / float(s)) for m, s in zip(mean, std, strict=True)),
        filter=_FILTERS[interpolation],
        ir_version=ir_version,
        opset=opset,
    )
    return parser.parse_model(text)


def describe_preprocessing(side: int, mean: Sequence[float], std: Sequence[float], interpolation: str) -> str:
    """Says in words what `preprocessing_graph` does, for the file's metadata."""
    return (
        f"inside the graph: the whole image is resized to {side} x {side} ({interpolation}, antialiased, as Pillow), "
        f"divided by 255, minus mean {list(mean)}, divided by std {list(std)}"
    )
