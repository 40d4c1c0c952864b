"""The graph alone: preprocessing beside Pillow, any size, batches, other architectures, int8."""

from pathlib import Path

import elpv_dataset
import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from builders import a_plan, noise

from graftline.data.decode import decode_rgb, resize_square
from graftline.errors import GraftlineError
from graftline.export.int8 import mostly_products, quantise
from graftline.export.latency import measure_latency, torch_runner
from graftline.export.onnx_graph import export_network, join
from graftline.export.preprocessing import preprocessing_graph
from graftline.models.edge import EdgeModel
from graftline.models.predict import predict
from graftline.records import FileEntry, Interval, TrainedModel

SIZES = [(300, 300), (37, 400), (1024, 768), (224, 224), (100, 151), (1, 1)]


def record_for(backbone: str, side: int, interpolation: str = "bicubic", classes: int = 3) -> TrainedModel:
    plan = a_plan(backbone=backbone, strategy="feature_extraction", image_size=side, epochs=0)
    return TrainedModel(
        data_version="d0",
        policy="",
        plan=plan,
        pretrained="",
        classes=[f"class {i}" for i in range(classes)],
        image_size=side,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation=interpolation,
        parameters=1,
        seed=0,
        kept_epoch=0,
        validation_accuracy=Interval(value=0, low=0, high=1, n=0),
        weights=FileEntry(file="model.safetensors", sha256="", bytes=0),
    )


def untrained(backbone: str, classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(backbone, num_classes=classes).eval()


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    files = sorted((Path(elpv_dataset.__file__).parent / "data" / "images").glob("*.png"))
    return [decode_rgb(file.read_bytes()) for file in files[::100]]


@pytest.fixture(scope="module")
def small_network() -> tuple[torch.nn.Module, onnx.ModelProto]:
    """A ResNet of 12 convolutions, untrained, whose outputs differ between images; and its export at 64 pixels."""
    model = untrained("resnet10t")
    with torch.no_grad():
        model.fc.weight *= 30
    return model, export_network(model, 64, "resnet10t")


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_preprocessing_is_pillows(size: tuple[int, int], interpolation: str) -> None:
    image = noise(0, *size)  # noise is the hardest picture
    graph = preprocessing_graph(224, (0, 0, 0), (1 / 255,) * 3, interpolation, ir_version=10, opset=20)
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    result = session.run(None, {"image": image[None]})[0][0].transpose(1, 2, 0)
    difference = np.abs(result - resize_square(image, 224, interpolation))
    assert difference.max() <= 1.001
    assert (difference > 0.5).mean() < 0.01


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_narrow_photographs_are_nearly_pillows(photographs: list[np.ndarray], interpolation: str) -> None:
    graph = preprocessing_graph(224, (0, 0, 0), (1 / 255,) * 3, interpolation, ir_version=10, opset=20)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for image in photographs:
        narrow = np.ascontiguousarray(image[:, :100])
        result = session.run(None, {"image": narrow[None]})[0][0].transpose(1, 2, 0)
        difference = np.abs(result - resize_square(narrow, 224, interpolation))
        assert difference.max() <= 2.001
        assert (difference > 0.5).mean() < 0.2


@pytest.mark.slow
def test_photographs_give_what_torch_gives(
    tmp_path: Path, photographs: list[np.ndarray], small_network: tuple[torch.nn.Module, onnx.ModelProto]
) -> None:
    model, network = small_network
    record = record_for("resnet10t", 64, "bilinear")
    onnx.save_model(join(network, record), tmp_path / "model.onnx")
    edge = EdgeModel(tmp_path / "model.onnx")
    resized = np.stack([resize_square(image, 64, "bilinear") for image in photographs])
    expected = predict(model, resized, record.mean, record.std)
    assert expected.std(0).max() > 0.01
    one_by_one = np.concatenate([edge(image[None]) for image in photographs])
    assert np.abs(one_by_one - expected).max() < 0.005
    assert np.allclose(edge(np.stack(photographs)), one_by_one, atol=1e-5)
    assert np.allclose(one_by_one.sum(1), 1, atol=1e-5)


@pytest.mark.slow
def test_the_file_is_plain_and_the_same_on_every_machine(
    small_network: tuple[torch.nn.Module, onnx.ModelProto],
) -> None:
    model, network = small_network
    record = record_for("resnet10t", 64)
    whole = join(network, record)
    assert {opset.domain for opset in whole.opset_import} == {""}
    content = whole.SerializeToString()
    assert str(Path(timm.__file__).parent).encode() not in content
    assert join(export_network(model, 64, "resnet10t"), record).SerializeToString() == content


@pytest.mark.slow
def test_int8_leaves_preprocessing_and_the_sensitive_ends_in_float(
    tmp_path: Path, photographs: list[np.ndarray], small_network: tuple[torch.nn.Module, onnx.ModelProto]
) -> None:
    model, network = small_network
    record = record_for("resnet10t", 64)
    images = np.stack([resize_square(image, 64) for image in photographs])
    small = join(quantise(network, images, record.mean, record.std), record)
    onnx.save_model(small, tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.3 * len(network.SerializeToString())
    producers = {output: node.op_type for node in small.graph.node for output in node.output}
    resize = next(node for node in small.graph.node if node.op_type == "Resize")
    assert resize.input[0] == "image"
    weights = [producers.get(node.input[1], "float") for node in small.graph.node if node.op_type in ("Conv", "Gemm")]
    assert weights == ["float"] * 2 + ["DequantizeLinear"] * 12 + ["float"]
    expected = predict(model, images, record.mean, record.std)
    probabilities = np.concatenate([EdgeModel(tmp_path / "int8.onnx")(image[None]) for image in photographs])
    assert np.abs(probabilities - expected).max() < 0.05


@pytest.mark.slow
def test_a_transformer_is_quantised_by_its_products(tmp_path: Path, photographs: list[np.ndarray]) -> None:
    model, record = untrained("vit_tiny_patch16_224"), record_for("vit_tiny_patch16_224", 224)
    network = export_network(model, 224, "vit_tiny_patch16_224")
    assert mostly_products(network)
    images = np.stack([resize_square(image, 224) for image in photographs[:4]])
    small = join(quantise(network, images, record.mean, record.std), record)
    onnx.save_model(small, tmp_path / "int8.onnx")
    assert any(node.op_type == "MatMulInteger" for node in small.graph.node)
    edge = EdgeModel(tmp_path / "int8.onnx")
    probabilities = np.concatenate([edge(image[None]) for image in photographs[:4]])
    assert np.abs(probabilities - predict(model, images, record.mean, record.std)).max() < 0.05


def test_a_network_that_torch_cannot_export_is_named() -> None:
    class Stubborn(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(pixels), 3) if pixels.sum() > 0 else torch.ones(len(pixels), 3)

    with pytest.raises(GraftlineError, match=r"^stubborn_net cannot be exported to ONNX \(.*choose another backbone$"):
        export_network(Stubborn(), 32, "stubborn_net")


def test_latency_is_measured_turn_by_turn_and_leaves_the_threads(photographs: list[np.ndarray]) -> None:
    record, model = record_for("mobilenetv3_small_050", 32), untrained("mobilenetv3_small_050")
    calls: list[str] = []

    def other(images: np.ndarray) -> np.ndarray:
        assert torch.get_num_threads() == 1
        calls.append("other")
        return images

    run = torch_runner(model, record)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        times = measure_latency({"torch": run, "other": other}, photographs[0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert times["torch"].n == times["other"].n >= 30
    assert len(calls) == times["other"].n + 5
    assert all(time.low <= time.value <= time.high for time in times.values())
    assert run(photographs[0][None]).shape == (1, 3)
