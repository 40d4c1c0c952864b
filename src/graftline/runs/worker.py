"""The process that runs a pipeline under `kfp.local`: `python -m graftline.runs.worker PIPELINE RUN_FOLDER`.

It is a process of its own, so that kfp's noise goes into the run's log and not to the user, and so that everything a
run has started can be stopped with it. It reads `arguments.json`, writes `outputs.json` (paths of the artifacts), and
appends to the file of `GRAFTLINE_PROGRESS` what becomes of each step, beside the progress that the steps report there.
"""

import io
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from importlib import import_module
from pathlib import Path

from graftline.files import write_json
from graftline.runs.board import line_name
from graftline.runs.containers import Containers, saved
from graftline.runs.local_cache import know_inputs_by_content
from graftline.workspace import workspace

ARGUMENTS, OUTPUTS = "arguments.json", "outputs.json"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# How kfp 2.17 speaks of tasks; the tests of a run fail when a later version says it otherwise.
_SAYS = {
    "running": re.compile(r" - INFO - Executing task '([\w-]+)'$"),
    "cached": re.compile(r" - INFO - Task ([\w-]+) cache hit"),
    "done": re.compile(r" - INFO - Task '([\w-]+)' finished with status SUCCESS$"),
    "failed": re.compile(r" - ERROR - Task '([\w-]+)' finished with status FAILURE$"),
}
_ERROR = re.compile(r"^ *((?:graftline\.[\w.]+|[\w.]+(?:Error|Exception|Exit|Interrupt))(?:: .*)?)$")


class Log(io.TextIOBase):
    """A standard output that takes colours out and tells the progress file what becomes of each step.

    Args:
        progress: The file to which events are appended as JSON lines.
    """

    def __init__(self, progress: Path) -> None:
        self._out, self._progress, self._line, self._error = sys.__stdout__, progress, "", ""
        self._begun: Counter[str] = Counter()

    def write(self, text: str) -> int:
        """Takes any piece of text; whole lines are written on."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._take(_COLOUR.sub("", line).rstrip())
        return len(text)

    def _take(self, line: str) -> None:
        assert self._out is not None
        print(line, file=self._out, flush=True)
        error = _ERROR.match(line)
        if error:
            self._error = error[1]
        for state, pattern in _SAYS.items():
            found = pattern.search(line)
            if found:
                self._tell(found[1].replace("-", "_"), state)

    def _tell(self, step: str, state: str) -> None:
        if state in ("running", "cached"):  # a loop's tasks run one after the other, under the same name
            self._begun[step] += 1
        event: dict[str, object] = {
            "step": line_name(step, self._begun[step]),
            "state": state,
            "time": time.time(),
        }
        if state == "failed":
            event["error"] = self._error
        self._error = ""
        with self._progress.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


def main(name: str, folder: Path) -> None:
    """Runs the pipeline of that name with the arguments in `folder` and writes its outputs there.

    Raises:
        RuntimeError: A step failed; the log says why.
    """
    boxes = saved(folder)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once: kfp would begin the next candidate before it ends
    threading.Thread(target=_end_with_parent, args=(boxes,), daemon=True).start()
    sys.stdout = Log(Path(os.environ["GRAFTLINE_PROGRESS"]))
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s - %(levelname)s - %(message)s")
    warnings.simplefilter("ignore")  # that no cluster is here, for each step
    from kfp import local

    pipeline = getattr(import_module(f"graftline.pipelines.{name}"), name)
    if boxes:
        boxes.take_over()
    know_inputs_by_content()
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner, pipeline_root=str(workspace() / "pipeline"), enable_caching=True)
    outputs = pipeline(**json.loads((folder / ARGUMENTS).read_text(encoding="utf-8"))).outputs
    write_json(folder / OUTPUTS, {name: artifact.path for name, artifact in outputs.items()})


def _end_with_parent(boxes: Containers | None) -> None:
    """Stops this process and all it started when the parent, which holds the other end of the input, is gone."""
    os.read(0, 1)
    if boxes:
        boxes.remove()
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
