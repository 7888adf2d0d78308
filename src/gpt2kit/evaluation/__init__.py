"""From a model and its texts to figures one can trust: likelihood, diversity, coherence, memorisation, and a report."""

from typing import TYPE_CHECKING

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.evaluation.findings import Evaluation as Evaluation
    from gpt2kit.evaluation.run import evaluate as evaluate
    from gpt2kit.evaluation.settings import EvaluateSettings as EvaluateSettings

__getattr__ = lazy_names(
    __name__,
    {
        "Evaluation": "findings",
        "evaluate": "run",
        "EvaluateSettings": "settings",
    },
)
