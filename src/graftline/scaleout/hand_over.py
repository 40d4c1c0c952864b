"""Where a step trains: in this process, in several of this machine, or on several machines."""

from collections.abc import Mapping
from typing import Any

from graftline.scaleout.job import train_on_nodes
from graftline.scaleout.launch import count_processes, is_member, launch
from graftline.scaleout.settings import job_settings


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
    settings = job_settings()
    if settings:
        train_on_nodes(settings, function, arguments)
        return True
    processes = count_processes(arguments["processes"], arguments["device"])
    if processes == 1:
        return False
    launch(function, arguments, processes)
    return True
