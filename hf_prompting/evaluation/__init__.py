"""Step 7 of the data flow: class scores become metrics, a report and one picture."""

from hf_prompting.evaluation.metrics import METRICS, compute_metrics, confusion_matrix
from hf_prompting.evaluation.perplexity import Perplexity, perplexity
from hf_prompting.evaluation.plots import draw_run
from hf_prompting.evaluation.report import Report, evaluate_rows, report_scores
from hf_prompting.evaluation.scoring import score_rows, softmax

__all__ = [
    "METRICS",
    "Perplexity",
    "Report",
    "compute_metrics",
    "confusion_matrix",
    "draw_run",
    "evaluate_rows",
    "perplexity",
    "report_scores",
    "score_rows",
    "softmax",
]
