"""One contender's process: reads calls from standard input, one JSON line each, and writes what they return.

Started by `_common.Worker`. Everything that a contender prints goes to standard error.
"""

import json
import os
import sys

from _common import Task
from _ours import Graftline
from _peers import FastAI, Tutorial

CONTENDERS = {"graftline": Graftline, "tutorial": Tutorial, "fastai": FastAI}


def main(contender: str, task: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    subject = CONTENDERS[contender](Task(**json.loads(task)))
    for line in sys.stdin:
        call, arguments = json.loads(line)
        print(json.dumps(getattr(subject, call)(**arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
