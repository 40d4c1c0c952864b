"""Trained models on disk: `record.json` and `model.safetensors`."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graftline.errors import GraftlineError
from graftline.files import sha256_file
from graftline.models.backbones import build_empty
from graftline.records import DataVersion, FileEntry, TrainedModel, read_record

WEIGHTS_FILE = "model.safetensors"


def save_weights(folder: Path, model: nn.Module) -> FileEntry:
    """Writes the model's state as safetensors and returns its entry for the record.

    Args:
        folder: Existing folder.
        model: A timm classifier.
    """
    path = folder / WEIGHTS_FILE
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, path)
    return FileEntry(file=WEIGHTS_FILE, sha256=sha256_file(path), bytes=path.stat().st_size)


def load_trained(folder: Path) -> tuple[TrainedModel, nn.Module]:
    """Loads a model that `graftline fine_tune` wrote.

    Args:
        folder: The step's output folder.

    Returns:
        The record and the classifier: fp32, eval mode, normalised float [n, 3, size, size] in, logits [n, classes] out.

    Raises:
        GraftlineError: Not a model folder, or the weights are not those of the record.
    """
    record = read_record(folder, TrainedModel)
    return record, load_network(folder, record)


def load_network(folder: Path, record: TrainedModel) -> nn.Module:
    """Loads the classifier of a record that has been read, as `load_trained` does.

    Raises:
        GraftlineError: The weights are not those of the record.
    """
    model = build_empty(record.plan.backbone, len(record.classes))
    model.load_state_dict(_read_weights(folder, record))
    return model.eval()


def read_trained(folder: Path) -> tuple[TrainedModel, dict[str, Tensor]]:
    """Reads the record and the weights of a model that `graftline fine_tune` wrote.

    Raises:
        GraftlineError: Not a model folder, or the weights are not those of the record.
    """
    record = read_record(folder, TrainedModel)
    return record, _read_weights(folder, record)


def _read_weights(folder: Path, record: TrainedModel) -> dict[str, Tensor]:
    path = folder / record.weights.file
    if not path.is_file() or sha256_file(path) != record.weights.sha256:
        raise GraftlineError(
            f"{path} is missing or is not the file that its record describes: run `graftline fine_tune` again"
        )
    return load_file(path)


def require_same_data(dataset: Path, data: DataVersion, model: Path, trained: TrainedModel) -> None:
    """Checks that a model was trained on a dataset, so that its test images were not.

    Args:
        dataset: The dataset's folder.
        data: Its record.
        model: The model's folder.
        trained: Its record.

    Raises:
        GraftlineError: It was trained on another version, or knows other classes.
    """
    if trained.data_version != data.version:
        raise GraftlineError(
            f"{model} was trained on data version {trained.data_version}, but {dataset} is {data.version}: its test "
            f"images may have been training images; give the dataset of {trained.data_version}, or run "
            "`graftline fine_tune` on this one"
        )
    if trained.classes != data.classes:
        raise GraftlineError(
            f"{model} has the classes {', '.join(trained.classes)}, but {dataset} has {', '.join(data.classes)}: "
            "run `graftline fine_tune` on this dataset"
        )
