"""From a model and its texts to figures one can trust: likelihood, diversity, coherence, memorisation, and a report."""

from gpt2kit.evaluation.run import Evaluation as Evaluation
from gpt2kit.evaluation.run import evaluate as evaluate
from gpt2kit.evaluation.settings import EvaluateSettings as EvaluateSettings
