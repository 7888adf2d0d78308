"""Models on tasks with known answers, read from local files, and on the tasks of lm-eval."""

from typing import TYPE_CHECKING

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.evaluation.tasks.run import TaskResults as TaskResults
    from gpt2kit.evaluation.tasks.run import run_tasks as run_tasks
    from gpt2kit.evaluation.tasks.settings import TaskSettings as TaskSettings

__getattr__ = lazy_names(
    __name__,
    {
        "TaskResults": "run",
        "run_tasks": "run",
        "TaskSettings": "settings",
    },
)
