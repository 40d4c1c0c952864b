"""Where a step trains: in this process, or in several of this machine."""

from collections.abc import Mapping
from typing import Any

from graftline.scaleout.launch import count_processes, is_member, launch


def handed_over(function: str, arguments: Mapping[str, Any]) -> bool:
    """Lets others call a step's function, where training is not for this process alone.

    Args:
        function: The step's `module:name`.
        arguments: All its arguments, by name: folders to read and `out` as paths.

    Returns:
        Whether they did, and `out` is written. If not, it is for the caller to train.

    Raises:
        GraftlineError: The others failed.
        SystemExit: SIGTERM came; a checkpoint is written.
    """
    if is_member():
        return False
    processes = count_processes(arguments["processes"], arguments["device"])
    if processes == 1:
        return False
    launch(function, arguments, processes)
    return True
