"""What every record is made of: the base class, reading, writing, intervals, files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, ValidationInfo, model_validator
from pydantic_core import to_json, to_jsonable_python

from graftline.errors import GraftlineError
from graftline.files import sha256_bytes, sha256_file, write_atomic

RECORD_FILE = "record.json"
R = TypeVar("R", bound="Record")
_AS_READ = "_as_read"  # not a field: equal parts stay equal, and nothing of it is written


class Part(BaseModel):
    """A part of a record: strict and immutable. One that was read knows its JSON as it stood."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _remember(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        part = handler(cls._in_present_form(data))
        if info.mode == "json":
            part.__dict__[_AS_READ] = data
        return part

    @classmethod
    def _in_present_form(cls, data: Any) -> Any:
        """Returns what is to be validated, which an earlier version may have written in another form; never changed."""
        return data

    @property
    def json_text(self) -> str:
        """Its JSON without white space: as it was read, whatever fields have come since, or as it would be written."""
        return self._json()

    def _json(self, indent: int | None = None) -> str:
        read = self.__dict__.get(_AS_READ)
        return self.model_dump_json(indent=indent) if read is None else to_json(read, indent=indent).decode()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Returns a copy with some fields changed; of one that was read, the JSON stays but for these."""
        copy = super().model_copy(update=update, deep=deep)
        if _AS_READ in copy.__dict__:
            copy.__dict__[_AS_READ] = copy.__dict__[_AS_READ] | to_jsonable_python(dict(update or {}))
        return copy


class Record(Part):
    """Base of all records: strict, immutable, with a version of its own form.

    Attributes:
        step: The step that writes it.
    """

    step: ClassVar[str]
    schema_version: Literal[1] = 1

    def write(self, folder: Path, file: str = RECORD_FILE) -> Self:
        """Writes the record into `folder`, as `record.json` unless it lies beside another, and returns it."""
        write_atomic(folder / file, self._json(indent=2) + "\n")
        return self

    @property
    def sha256(self) -> str:
        """The SHA-256 of the JSON without white space, in hexadecimal: the name by which later records refer to it.

        A record that was read keeps the hash that it was written with: fields that were added since, and their order,
        do not count.
        """
        return sha256_bytes(self.json_text.encode())


def read_record(folder: Path, kind: type[R], file: str = RECORD_FILE) -> R:
    """Reads the record of a step's output folder.

    Args:
        folder: A folder that a step wrote.
        kind: The expected record class.
        file: Its name there.

    Raises:
        GraftlineError: There is no record, or it is of another kind or form; the message names the step that writes it.
    """
    path = folder / file
    if not path.is_file():
        raise GraftlineError(f"{folder} is not an output of `graftline {kind.step}`: it has no {file}")
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise GraftlineError(
            f"{path} is not a {kind.__name__} record of this version of graftline ({where}: {first['msg']}): "
            f"run `graftline {kind.step}` again"
        ) from error


class Interval(Part):
    """A measured number with its 95 % interval.

    Attributes:
        value: The point estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of images (or runs) it stands on.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] (n={self.n})"


def with_ends(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """Returns measured numbers flat, as `dvc metrics`, MLflow and Kubeflow take them: NAME, NAME_low, NAME_high."""
    flat: dict[str, float] = {}
    for name, one in intervals.items():
        flat |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    return flat


class FileEntry(Part):
    """One file of an output folder.

    Attributes:
        file: Path relative to the folder.
        sha256: Hexadecimal SHA-256 of the content.
        bytes: Size.
    """

    file: str
    sha256: str
    bytes: int


def list_files(folder: Path) -> list[FileEntry]:
    """Returns an entry for every file below `folder` but the record itself, sorted by path."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / RECORD_FILE)
    return [
        FileEntry(file=p.relative_to(folder).as_posix(), sha256=sha256_file(p), bytes=p.stat().st_size) for p in paths
    ]


def check_files(folder: Path, files: Iterable[FileEntry], remedy: str) -> None:
    """Checks that files are those that a record describes.

    Args:
        folder: The step's output folder.
        files: From its record.
        remedy: What the user can do when they are not.

    Raises:
        GraftlineError: A file is missing or changed.
    """
    for entry in files:
        path = folder / entry.file
        if not path.is_file():
            raise GraftlineError(f"the file {entry.file} is missing from {folder}: {remedy}")
        if sha256_file(path) != entry.sha256:
            raise GraftlineError(
                f"{path} is not the file that was measured, its SHA-256 differs from the record: {remedy}"
            )
