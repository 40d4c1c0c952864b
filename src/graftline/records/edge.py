"""Records of what is shipped and registered."""

from typing import Annotated, Literal

from pydantic import StringConstraints

from graftline.records.base import FileEntry, Interval, Part, Record


class Variant(Part):
    """One form of the model, measured.

    Attributes:
        name: "torch", or that of a form in `export/forms.py` of the version that wrote it.
        file: The file in the bundle; empty for torch and for a variant that was not kept.
        bytes: Size of the file as measured (torch: of the safetensors weights).
        latency_ms: Median milliseconds for one image, one thread, preprocessing included; interval: quartiles; n: runs.
        accuracy: On the test images.
        agreement: Share of test images with the same top class as torch.
        max_probability_gap: Largest difference of any probability from torch's.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    file: str
    bytes: int
    latency_ms: Interval
    accuracy: Interval
    agreement: Interval
    max_probability_gap: float


class EdgeBundle(Record):
    """What is shipped: ONNX files with preprocessing inside, labels, parity and lineage.

    Attributes:
        data_version: The data behind the model.
        model: SHA-256 of the model's record.
        classes: Class names in the order of the outputs.
        variants: torch and every form that could be made, kept or not.
        shipped: The file to deploy.
        why: Why that one, in plain words.
        web_page: Whether the bundle holds a page that runs the model in a browser, and if not, why not.
        files: All files.
    """

    step = "export_onnx"
    kind: Literal["edge_bundle"] = "edge_bundle"
    data_version: str
    model: str
    classes: list[str]
    variants: list[Variant]
    shipped: str
    why: str
    web_page: str
    files: list[FileEntry]

    def variant(self, name: str) -> Variant | None:
        """Returns the variant of that name, None when it was not made."""
        return next((variant for variant in self.variants if variant.name == name), None)


class Registration(Record):
    """What the registry was told.

    Attributes:
        data_version: The data behind the model.
        bundle: SHA-256 of the bundle's record.
        name: Registered model's name.
        version: Its version number.
        alias: "champion" or "challenger".
        reason: Why that alias, in plain words.
        champion_before: Version that was champion before; empty when there was none.
        difference: New accuracy minus the champion's on the same test images (paired interval), None if there was none.
    """

    step = "register_model"
    kind: Literal["registration"] = "registration"
    data_version: str
    bundle: str
    name: str
    version: str
    alias: Literal["champion", "challenger"]
    reason: str
    champion_before: str = ""
    difference: Interval | None = None
