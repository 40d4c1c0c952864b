"""Depthwise convolutions whose backward pass stays on the fast path of the CPU in bfloat16.

In bfloat16 two gradients of oneDNN's depthwise convolution fall back to a slow reference kernel: the input gradient of
strided ones and the weight gradient of large kernels. Those alone are computed in float32. The choice goes by the
layer's shape, not by a measurement, so that runs repeat bit for bit; `benchmarks/depthwise.py` prints the times behind
it.
"""

from typing import Any, cast

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional

_LARGE_KERNEL = 5


class _DepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = stride, padding, dilation
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        slow_input = max(ctx.shape[0]) > 1
        slow_weight = weight.shape[-1] >= _LARGE_KERNEL
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradient(gradients[0], x, weight, ctx.shape, 0, in_float32=slow_input)
        if ctx.needs_input_grad[1]:
            grad_weight = _gradient(gradients[0], x, weight, ctx.shape, 1, in_float32=slow_weight)
        if ctx.needs_input_grad[2]:
            grad_bias = gradients[0].sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None, None


def _gradient(grad: Tensor, x: Tensor, weight: Tensor, shape: Any, which: int, in_float32: bool) -> Tensor:
    """Returns the gradient to the input (which=0) or to the weight (which=1), in the dtype of `x`."""
    stride, padding, dilation = shape
    tensors = [t.float() for t in (grad, x, weight)] if in_float32 else [grad, x, weight]
    mask = [which == 0, which == 1, False]
    channels = weight.shape[0]
    result = torch.ops.aten.convolution_backward(
        *tensors, None, stride, padding, dilation, False, [0, 0], channels, mask
    )
    return cast(Tensor, result[which]).to(x.dtype)


class _DepthwiseConv2d(nn.Conv2d):
    """A depthwise `nn.Conv2d` (or timm's `Conv2dSame`) with the backward pass above."""

    same_padding = False

    def forward(self, x: Tensor) -> Tensor:
        """Convolves `x` in the autocast precision."""
        if self.same_padding:
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        padding = [0, 0] if self.same_padding else list(cast(tuple[int, ...], self.padding))
        bias = None if self.bias is None else self.bias.to(dtype)
        shape = list(self.stride), padding, list(self.dilation)
        return cast(Tensor, _DepthwiseFunction.apply(x.to(dtype), self.weight.to(dtype), bias, *shape))


def speed_up_depthwise(model: nn.Module) -> None:
    """Swaps the depthwise convolutions of `model`, in place, for ones with a fast bfloat16 backward pass.

    Parameters stay the same objects under the same names.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if _is_depthwise(child):
                setattr(parent, name, _swap(child))


def _is_depthwise(module: nn.Module) -> bool:
    if type(module) not in (nn.Conv2d, Conv2dSame):
        return False
    convolution = cast(nn.Conv2d, module)
    channels = convolution.in_channels
    return convolution.groups == channels == convolution.out_channels > 1


def _swap(module: nn.Module) -> nn.Module:
    old = cast(nn.Conv2d, module)
    shape = old.in_channels, old.out_channels, cast(tuple[int, int], old.kernel_size)
    new = _DepthwiseConv2d(*shape, groups=old.groups, bias=False)
    new.stride, new.padding, new.dilation = old.stride, old.padding, old.dilation
    new.same_padding = isinstance(old, Conv2dSame)
    new.weight, new.bias = old.weight, old.bias
    return new
