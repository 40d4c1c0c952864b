"""What a compiled pipeline holds: its graphs, its tasks, its loop."""

from collections.abc import Iterator
from typing import Any


def graphs(spec: Any) -> Iterator[tuple[Any, Any]]:
    """Yields every graph of a pipeline with the definitions of its inputs: the whole, conditions and loops."""
    yield spec.root.dag, spec.root.input_definitions
    for component in spec.components.values():
        if component.HasField("dag"):
            yield component.dag, component.input_definitions


def tasks_of(spec: Any) -> dict[str, Any]:
    """Returns the tasks that run a step, wherever in the pipeline."""
    every = {name: task for dag, _ in graphs(spec) for name, task in dag.tasks.items()}
    return {name: task for name, task in every.items() if not spec.components[task.component_ref.name].HasField("dag")}


def loop_of(spec: Any) -> Any:
    """Returns the task that runs its graph for each candidate."""
    (loop,) = (task for dag, _ in graphs(spec) for task in dag.tasks.values() if task.HasField("parameter_iterator"))
    return loop
