"""`gpt2kit demo`: the whole road on sample text, for stories, poems, conversation and product descriptions."""

from gpt2kit.demo.run import DemoResult, run
from gpt2kit.demo.tasks import TASKS, Task

__all__ = ["TASKS", "DemoResult", "Task", "run"]
