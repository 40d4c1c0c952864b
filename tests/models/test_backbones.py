"""Every family of backbones, with random weights: head, layer groups, freezing, a training step, features, folding."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from graftline.cli import main as cli
from graftline.errors import FrozenMovedError, GraftlineError, WeightsError
from graftline.models.backbones import build_backbone, build_empty, check_backbone, input_spec
from graftline.models.catalog import FAMILIES, catalog, measure
from graftline.models.folding import folded_norms
from graftline.models.freezing import Freezer
from graftline.models.groups import layer_groups
from graftline.models.predict import normalise
from graftline.models.weights import head_name
from graftline.training.device import make_accelerator
from graftline.training.features import FeatureKey, Features, cached_features

# The smallest member of each family, with what makes it smaller still: VGG's hidden layer, ViT's 224 pixels.
SMALL: dict[str, dict[str, float]] = {
    "resnet18": {},
    "vgg16": {"mlp_ratio": 1 / 64},
    "efficientnet_b0": {},
    "tf_efficientnet_lite0": {},
    "mobilenetv1_100": {},
    "mobilenetv2_100": {},
    "mobilenetv3_small_100": {},
    "densenet121": {},
    "vit_tiny_patch16_224": {"img_size": 64},
}
CLASSES = 3
SIDE = 64


@cache
def _made(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=CLASSES, **SMALL[name])
        _draw_norms(model)
    return model


def _model(name: str) -> nn.Module:
    return copy.deepcopy(_made(name))


def _draw_norms(model: nn.Module) -> None:
    """Gives BatchNorm layers statistics of real activations, and scales and shifts unlike the initial 1 and 0."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.2, 0.2)
            norm.momentum = 1.0
        model.train()(torch.randn(8, 3, SIDE, SIDE))
        for norm in norms:
            norm.momentum = 0.1


def _pixels(images: int = 4) -> Tensor:
    return torch.randn(images, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SMALL)
def test_head_has_as_many_outputs_as_classes(name: str) -> None:
    model = _model(name).eval()
    assert model(_pixels()).shape == (4, CLASSES)
    assert model.get_submodule(head_name(model)).out_features == CLASSES


@pytest.mark.parametrize("name", SMALL)
def test_groups_cover_every_parameter_once_in_the_order_of_the_forward_pass(name: str) -> None:
    model = _model(name).eval()
    groups = layer_groups(model)
    names = [n for group in groups for n in group.parameters]
    assert sorted(names) == sorted(n for n, _ in model.named_parameters())
    assert {n.rpartition(".")[0] for n in groups[-1].parameters} == {head_name(model)}
    group_of = {n: i for i, group in enumerate(groups) for n in group.modules}
    order: list[int] = []
    for module_name, module in model.named_modules():
        if module_name in group_of:
            module.register_forward_pre_hook(lambda m, x, i=group_of[module_name]: order.append(i))
    model(_pixels(1))
    assert order == sorted(order)
    assert set(order) == set(range(len(groups)))


def _step(model: nn.Module) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    nn.functional.cross_entropy(model(_pixels()), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_frozen_to_each_depth_only_what_is_above_moves(name: str) -> None:
    model = _model(name)
    groups = layer_groups(model)
    for frozen in range(len(groups)):
        model.load_state_dict(_made(name).state_dict())
        freezer = Freezer(model, groups, frozen, norm_statistics_frozen=False)
        freezer.train_mode()
        _step(model)
        freezer.check()
        fixed = {n for group in groups[:frozen] for n in group.parameters}
        before = _made(name).state_dict()
        moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
        assert {n for n, _ in model.named_parameters() if n in moved} == {
            n for n, _ in model.named_parameters() if n not in fixed
        }
        owners = {n for group in groups[:frozen] for n in group.modules}
        assert not {n for n in moved if n.rpartition(".")[0] in owners}


@pytest.mark.parametrize("name", SMALL)
def test_norm_statistics_stay_while_layers_train(name: str) -> None:
    model = _model(name)
    freezer = Freezer(model, layer_groups(model), 0)
    freezer.train_mode()
    _step(model)
    freezer.check()
    before = dict(_made(name).named_buffers())
    assert all(torch.equal(buffer, before[n]) for n, buffer in model.named_buffers())


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_head_turns_features_into_what_the_model_says(name: str) -> None:
    model, spec = _model(name), input_spec(name)
    images = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
    key, accelerator = FeatureKey("test", "train", name, "random, seed 0"), make_accelerator("cpu")
    features = cached_features(model, images, key, spec, accelerator)
    head = model.get_submodule(head_name(model))
    assert features.late.shape == (5, head.in_features)
    assert features.middle.ndim == 2
    assert np.isfinite(features.middle).all()
    with torch.no_grad(), accelerator.autocast():
        expected = model.eval()(normalise(torch.from_numpy(images), spec.mean, spec.std))
        torch.testing.assert_close(head(torch.from_numpy(features.late)), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", SMALL)
def test_folding_keeps_the_answer_and_unfolding_the_weights(name: str) -> None:
    model = _model(name).eval()
    with torch.no_grad():
        expected = model(_pixels())
        with folded_norms(model, side=SIDE):
            torch.testing.assert_close(model(_pixels()), expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(model(_pixels()), expected, rtol=1e-3, atol=1e-4)
    before, after = _made(name).state_dict(), model.state_dict()
    assert list(after) == list(before)
    for key, tensor in after.items():
        torch.testing.assert_close(tensor, before[key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "side"), [("pvt_v2_b0", 64), ("inception_v3", 128)])
def test_folding_asks_a_network_at_a_size_that_it_takes(name: str, side: int) -> None:
    model, images = timm.create_model(name, num_classes=CLASSES).eval(), torch.randn(1, 3, side, side)
    with torch.no_grad():
        expected = model(images)
        with folded_norms(model, side=side):
            torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "vgg16"])  # 0.5 GB of the same code
def test_pretrained_tensors_are_loaded_under_a_head_of_another_size(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("GRAFTLINE_WEIGHTS", str(tmp_path))
    saved = timm.create_model(name).state_dict()
    save_file(saved, tmp_path / f"{name}.safetensors")
    model, _ = build_backbone(name, CLASSES)
    differing = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, saved[n])}
    assert differing == {n for n in saved if n.startswith(f"{head_name(model)}.")}


def _features(backbone: str, side: int) -> Features:
    images = np.zeros((2, side, side, 3), dtype=np.uint8)
    key = FeatureKey("test", "train", backbone, f"{side} px")
    return cached_features(build_empty(backbone, CLASSES), images, key, input_spec(backbone), make_accelerator("cpu"))


def test_features_are_those_of_the_way_the_images_were_made_ready() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    model, key, machine = _model("resnet18"), FeatureKey("test", "train", "resnet18", "these"), make_accelerator("cpu")
    spec = input_spec("resnet18")
    first, other = (
        cached_features(model, images, key, one, machine).late
        for one in (spec, replace(spec, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    )
    assert not np.allclose(first, other)
    assert np.array_equal(cached_features(model, images, key, spec, machine).late, first)


@pytest.mark.usefixtures("own_cache")
def test_two_that_compute_the_same_features_do_not_disturb_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path))
    both, save = Barrier(2), np.savez

    def save_together(*arguments: Any, **arrays: Any) -> None:
        both.wait(60)
        save(*arguments, **arrays)
        both.wait(60)

    monkeypatch.setattr(np, "savez", save_together)
    images = np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8)
    spec, machine = input_spec("resnet18"), make_accelerator("cpu", "fp32", "channels_last")
    key = FeatureKey("test", "train", "resnet18", "of both")
    models = [_model("resnet18"), _model("resnet18")]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda model: cached_features(model, images, key, spec, machine), models))
    assert np.array_equal(found[0].late, found[1].late)
    (kept,) = (tmp_path / "cache" / "features").iterdir()
    assert np.array_equal(np.load(kept)["late"], found[0].late)


def test_a_transformer_takes_images_of_other_sizes() -> None:
    assert _features("vit_tiny_patch16_224", 96).late.shape == (2, 192)


@pytest.mark.parametrize(("backbone", "side"), [("vit_tiny_patch16_224", 100), ("mixer_s32_224", 96)])
def test_a_size_that_the_architecture_does_not_take_is_said(backbone: str, side: int) -> None:
    with pytest.raises(GraftlineError, match=rf"{backbone} does not take images of {side} pixels"):
        _features(backbone, side)


@pytest.mark.slow
def test_catalog_counts_what_is_published() -> None:
    rows = {row.name: row for row in catalog()}
    assert list(rows) == [name for family in FAMILIES.values() for name in family]
    published = {  # parameters in millions, GMACs: of the papers and of torchvision's tables
        "resnet50": (25.6, 4.09, 224),
        "vgg16": (138.4, 15.47, 224),
        "mobilenetv2_100": (3.5, 0.30, 224),
        "densenet121": (8.0, 2.83, 224),
        "vit_base_patch16_224": (86.6, 17.56, 224),
    }
    for name, (millions, giga, size) in published.items():
        row = rows[name]
        assert (round(row.parameters / 1e6, 1), round(row.macs / 1e9, 2), row.image_size) == (millions, giga, size)


@pytest.mark.usefixtures("own_cache")
def test_a_catalog_once_measured_is_read_and_a_new_member_is_added(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path))
    monkeypatch.setattr("graftline.models.catalog.FAMILIES", {"small": {"mobilenetv3_small_100": ""}})
    first = catalog()
    (file,) = (tmp_path / "cache").glob("backbones-*.json")
    file.write_text(json.dumps([{**json.loads(file.read_text())[0], "macs": 7}]))
    assert [row.macs for row in catalog()] == [7] != [row.macs for row in first]
    monkeypatch.setattr("graftline.models.catalog.FAMILIES", {"small": {"mobilenetv3_small_100": "", "resnet18": ""}})
    assert [row.name for row in catalog()] == ["mobilenetv3_small_100", "resnet18"]


def _rows(text: str) -> dict[str, list[str]]:
    """Returns the table's rows by backbone: the cells after the name, by words."""
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split()) and words[4:5] == ["px"]}


@pytest.mark.slow
def test_command_lists_every_backbone_as_the_documents_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backbones"]) == 0
    rows = _rows(capsys.readouterr().out)
    assert list(rows) == [name for family in FAMILIES.values() for name in family]
    assert rows["tf_efficientnet_lite0"][:4] == ["4.7", "0.39", "224", "px"]
    assert rows["tf_efficientnet_lite0"][-1] == "package"
    documented = _rows((Path(__file__).parents[2] / "docs" / "backbones.md").read_text())
    assert {name: cells[:4] for name, cells in documented.items()} == {name: cells[:4] for name, cells in rows.items()}


def test_command_describes_a_backbone_outside_the_catalog(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backbones", "--name", "repvgg_a0"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == f"{measure('repvgg_a0').parameters:,}"
    assert facts["weights"] == "not at hand"


def test_unknown_backbone_offers_near_names() -> None:
    with pytest.raises(GraftlineError, match=r"did you mean.*resnet50"):
        check_backbone("resnet5O")


def test_unknown_weights_of_a_known_backbone_offer_those_there_are() -> None:
    with pytest.raises(GraftlineError, match=r"resnet18 has no weights called 'best': there are.*resnet18\.a1_in1k"):
        check_backbone("resnet18.best")


def test_two_heads_are_refused() -> None:
    with pytest.raises(GraftlineError, match="does not end in one linear layer"):
        build_empty("deit_tiny_distilled_patch16_224", 2)


def test_dropout_reaches_the_model_and_is_refused_where_there_is_none() -> None:
    assert build_empty("resnet18", 2, dropout=0.3).drop_rate == 0.3
    with pytest.raises(GraftlineError, match="vgg16 has no stochastic depth"):
        build_empty("vgg16", 2, drop_path=0.1)


def test_input_comes_from_the_weights_own_record() -> None:
    spec = input_spec("tf_efficientnet_lite0")
    assert (spec.image_size, spec.mean, spec.std) == (224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert input_spec("mobilenetv3_large_100.ra4_e3600_r224_in1k").mean == (0.5, 0.5, 0.5)
    assert input_spec("mobilenetv3_large_100").mean == (0.485, 0.456, 0.406)


def test_a_record_beside_the_users_weights_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAFTLINE_WEIGHTS", str(tmp_path))
    (tmp_path / "resnet18.safetensors").touch()
    record = {"mean": [0.5, 0.5, 0.5], "input_size": [3, 160, 160], "interpolation": "bilinear"}
    (tmp_path / "resnet18.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": record}))
    spec = input_spec("resnet18")
    assert (spec.image_size, spec.mean, spec.interpolation) == (160, (0.5, 0.5, 0.5), "bilinear")
    assert spec.std == (0.229, 0.224, 0.225)
    (tmp_path / "resnet18.json").write_text('{"mean": 0.5}')
    with pytest.raises(WeightsError, match=r"resnet18\.json.*mean.*three numbers"):
        input_spec("resnet18")


@pytest.mark.parametrize("name", ["efficientnet_b0", "vit_tiny_patch16_224"])
def test_nothing_is_dropped_at_random_where_all_is_frozen(name: str) -> None:
    model = timm.create_model(name, num_classes=3, drop_path_rate=0.5, drop_rate=0.5)
    groups = layer_groups(model)
    Freezer(model, groups, len(groups) - 1).train_mode()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model.forward_features(images), model.forward_features(images))
        assert not torch.equal(model(images), model(images)), "dropout before the head that trains"


def test_a_wrong_freeze_is_caught() -> None:
    model = _model("mobilenetv2_100")
    freezer = Freezer(model, layer_groups(model), frozen=3, norm_statistics_frozen=False)
    model.train()  # the usual mistake: frozen BatchNorm left in train mode drifts
    _step(model)
    with pytest.raises(FrozenMovedError, match="running_mean"):
        freezer.check()
