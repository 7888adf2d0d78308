"""The tasks of lm-eval, run on our model."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from gpt2kit.config import suggestion
from gpt2kit.errors import NetworkError, UsageError
from gpt2kit.evaluation.statistics import Figure
from gpt2kit.evaluation.tasks.measure import TaskResult
from gpt2kit.evaluation.tasks.settings import TaskSettings
from gpt2kit.generation import LanguageModel

_RESAMPLES = 1000  # for the standard errors that lm-eval bootstraps


def run_harness(model: LanguageModel, settings: TaskSettings) -> list[TaskResult]:
    """Run tasks of lm-eval.

    Args:
        model: the model.
        settings: which tasks, where their files are, how many examples.

    Returns:
        A result for each task and group, with lm-eval's own figures and standard errors.

    Raises:
        UsageError: there is no such task, or no such folder.
        NetworkError: a task's data is not on this machine and cannot be fetched.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from gpt2kit.evaluation.tasks.harness_model import HarnessModel

    folder = settings.include_path
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--include_path {folder}: there is no such folder")
    manager = TaskManager(include_path=folder)
    for name in settings.harness:
        if name not in manager.all_tasks:
            raise UsageError(
                f"--harness {name}: lm-eval has no such task{suggestion(name, manager.all_tasks)}"
                f"{'' if folder else '; tasks of your own need --include_path'}"
            )
    with _quietly():
        try:
            found = simple_evaluate(
                model=HarnessModel(model, batch_size=settings.batch_size),
                tasks=list(settings.harness),
                num_fewshot=settings.num_fewshot,
                limit=settings.limit,
                bootstrap_iters=_RESAMPLES,
                log_samples=False,
                task_manager=manager,
            )
        except ConnectionError as error:
            raise NetworkError(
                f"--harness {', '.join(settings.harness)}: its data cannot be fetched: {error}"
            ) from error
    return list(_results(found))


def _results(found: dict[str, Any]) -> Iterator[TaskResult]:
    for task, values in found["results"].items():
        figures, errors = {}, {}
        for key, value in values.items():
            name, comma, how = key.partition(",")
            if not comma or not isinstance(value, int | float):
                continue
            shown = name if how == "none" else f"{name} ({how})"
            if name.endswith("_stderr"):
                errors[shown.replace("_stderr", "", 1)] = float(value)
            else:
                figures[shown] = Figure(float(value))
        shots = found.get("n-shot", {}).get(task)
        num_examples = found.get("n-samples", {}).get(task, {}).get("effective", 0)
        protocol = f"lm-eval's, version {found.get('versions', {}).get(task, 'unknown')}, {shots or 0} solved examples"
        yield TaskResult("harness", task, protocol, int(num_examples), figures, errors)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """lm-eval prints to stdout, which is for results, and starts processes to bootstrap in."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before
