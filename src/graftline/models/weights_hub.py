"""Pretrained weights from the hub, through timm; fails at once, in one line, where the hub cannot be reached."""

import os

import timm
from torch import Tensor

from graftline.errors import WeightsError
from graftline.models.weights_at_hand import packages_for

_ANSWER_WITHIN_SECONDS = 5.0
_FILES = ("model.safetensors", "open_clip_model.safetensors")


def hub_copy(backbone: str) -> str:
    """Returns the path of the backbone's weights in the hub's cache on this machine, or ''."""
    from huggingface_hub import try_to_load_from_cache

    repository = timm.get_pretrained_cfg(backbone).hf_hub_id
    found = [try_to_load_from_cache(repository, file) for file in _FILES] if repository else []
    return next((path for path in found if isinstance(path, str)), "")


def load_from_hub(backbone: str) -> dict[str, Tensor]:
    """Reads the weights from the hub's cache, or downloads them into it (safetensors, never unpickled).

    Raises:
        WeightsError: Nobody has published weights for the backbone, or the hub cannot be reached.
    """
    _check_published(backbone)
    copy = hub_copy(backbone)
    if not copy and timm.get_pretrained_cfg(backbone).hf_hub_id:
        _check_reachable(backbone)
    overlay = {"file": copy, "custom_load": False} if copy else None
    try:
        return timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
    except Exception as error:  # timm and the hub raise many kinds; all mean the same to the user
        raise _not_at_hand(backbone, f"{type(error).__name__}") from error


def _check_published(backbone: str) -> None:
    if timm.get_pretrained_cfg(backbone).has_weights:
        return
    others = timm.list_pretrained(f"*{backbone.partition('.')[0]}.*")
    instead = f"name one that has some ({', '.join(others[:3])})" if others else "name another backbone"
    raise WeightsError(
        f"nobody has published weights for {backbone}: {instead}, or put {backbone}.safetensors into the folder "
        "GRAFTLINE_WEIGHTS"
    )


def _check_reachable(backbone: str) -> None:
    """Asks the hub once: its own client retries for minutes before it gives up."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        raise _not_at_hand(backbone, "HF_HUB_OFFLINE is set")
    try:
        get_session().head(constants.ENDPOINT, timeout=_ANSWER_WITHIN_SECONDS)
    except Exception as error:  # the client library's own kinds, which changed with its versions
        away = _not_at_hand(backbone, f"{constants.ENDPOINT} does not answer")
        away.may_pass = True
        raise away from error


def _not_at_hand(backbone: str, why: str) -> WeightsError:
    file = f"{backbone}.safetensors"
    store = os.environ.get("GRAFTLINE_STORE") or "the store that GRAFTLINE_STORE names"
    return WeightsError(
        f"no pretrained weights for {backbone} are at hand and the hub gives none ({why}): put {file} into the folder "
        f"GRAFTLINE_WEIGHTS or into weights/ of {store}, {packages_for(backbone)}, or give access to the hub"
    )
