"""The typed, versioned records that travel between steps.

Every step writes a folder with a `record.json` and its files. A record names its inputs by content hash, so that a
chain of records leads from an edge file back to the data. Records hold no machine paths and no times, so that the same
work gives the same record.
"""

from graftline.records.base import (
    RECORD_FILE,
    FileEntry,
    Interval,
    Part,
    Record,
    check_files,
    list_files,
    read_record,
    with_ends,
)
from graftline.records.change import Change, Drift
from graftline.records.choice import CHOICE_FILE, Choice, TrainedCandidate, read_choice
from graftline.records.data import AugmentationPolicy, DataVersion
from graftline.records.edge import EdgeBundle, Registration, Variant
from graftline.records.model import ClassMetrics, Evaluation, TrainedModel, TrainingEvent
from graftline.records.transfer import (
    Balance,
    ProbeEvidence,
    Schedule,
    Settings,
    Strategy,
    TransferPlan,
    TransferPlans,
)

__all__ = [
    "CHOICE_FILE",
    "RECORD_FILE",
    "AugmentationPolicy",
    "Balance",
    "Change",
    "Choice",
    "ClassMetrics",
    "DataVersion",
    "Drift",
    "EdgeBundle",
    "Evaluation",
    "FileEntry",
    "Interval",
    "Part",
    "ProbeEvidence",
    "Record",
    "Registration",
    "Schedule",
    "Settings",
    "Strategy",
    "TrainedCandidate",
    "TrainedModel",
    "TrainingEvent",
    "TransferPlan",
    "TransferPlans",
    "Variant",
    "check_files",
    "list_files",
    "read_choice",
    "read_record",
    "with_ends",
]
