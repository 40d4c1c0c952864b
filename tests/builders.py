"""Records that tests need in order to try something else: each with values that do, and changes to them."""

from typing import Any

from graftline.records import TransferPlan


def a_plan(**changes: Any) -> TransferPlan:
    """Returns a plan for fine-tuning all layers with every setting at its default, but for the changes."""
    told = {"backbone": "tf_efficientnet_lite0", "strategy": "fine_tuning", "reasons": ["a test"]}
    return TransferPlan(**told | changes)
