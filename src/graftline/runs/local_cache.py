"""The cache of local runs, made to know a task's inputs by their content, wherever they lie."""

from typing import Any


def know_inputs_by_content() -> None:
    """Lets `kfp.local`, in this process, leave input artifacts out of its cache's keys, as a cluster does.

    Each task gets the hashes of what it reads as parameters; the folders are others after every run of the task before,
    even when the same was written. kfp.local has no door for other caches.
    """
    from kfp.dsl import Artifact
    from kfp.local import cache

    class ByContent(cache.LocalCache):
        def compute_key(self, *, arguments: dict[str, Any], **others: Any) -> str:
            values = {name: value for name, value in arguments.items() if not _is_artifact(value)}
            return str(super().compute_key(arguments=values, **others))

    def _is_artifact(value: Any) -> bool:
        return isinstance(value, Artifact) or (isinstance(value, list) and any(map(_is_artifact, value)))

    cache.LocalCache = ByContent
