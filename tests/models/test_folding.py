"""BatchNorm folded into convolutions while training."""

import pytest
import timm
import torch
from torch import nn

from graftline.models.folding import folded_norms


def _model() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=3).eval()
    for module in model.modules():  # statistics and shifts as training leaves them, not zeros and ones
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model


def _norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@torch.no_grad()
def test_the_folded_model_answers_alike_and_what_was_trained_survives_unfolding() -> None:
    model, images = _model(), torch.randn(2, 3, 64, 64)
    before, keys = model(images), list(model.state_dict())
    with folded_norms(model):
        assert _norms(model) == 0
        torch.testing.assert_close(model(images), before, rtol=1e-3, atol=1e-4)
        for parameter in model.parameters():
            parameter.mul_(1.01)
        trained = model(images)
    assert list(model.state_dict()) == keys
    assert (trained - before).abs().max() > 1e-2
    torch.testing.assert_close(model(images), trained, rtol=1e-3, atol=1e-4)


def test_statistics_and_kept_layers_are_bit_identical_afterwards() -> None:
    model = _model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frozen = frozenset(name for name, _ in model.named_modules() if name.startswith(("conv_stem", "bn1", "blocks.0")))
    with folded_norms(model, frozen):
        assert 0 < _norms(model) < 10
    after = model.state_dict()
    still = [n for n in before if "running" in n or n.startswith(("conv_stem", "bn1", "blocks.0"))]
    assert still and all(torch.equal(before[name], after[name]) for name in still)


def test_a_silent_channel_can_be_trained_and_comes_back_finite() -> None:
    model, images = _model(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model.bn1.weight[:4] = 0
        with folded_norms(model):
            model.conv_stem.weight.add_(0.01)
            trained = model(images)
        assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
        torch.testing.assert_close(model(images), trained, rtol=1e-3, atol=1e-4)


class _TwoReaders(nn.Module):
    """A convolution whose output is read by a norm and by a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        nn.init.uniform_(self.norm.running_mean, 0.5, 1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return (x + self.norm(x)).mean((2, 3))


def test_nothing_is_folded_where_the_answer_would_change() -> None:
    model = _TwoReaders().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with folded_norms(model):
        assert isinstance(model.norm, nn.BatchNorm2d)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_an_error_inside_still_unfolds() -> None:
    model = _model()
    with pytest.raises(RuntimeError, match="stop"), folded_norms(model):
        raise RuntimeError("stop")
    assert _norms(model) > 40
