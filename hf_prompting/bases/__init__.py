"""Base models: where they come from, how they are loaded, and how one is told from another."""

from hf_prompting.bases.fingerprint import BaseFingerprint, compare_bases, fingerprint_base
from hf_prompting.bases.folders import find_folder, remember_folder
from hf_prompting.bases.hub import hub_problem
from hf_prompting.bases.load import load_base_model, load_base_tokenizer
from hf_prompting.bases.locate import LocatedBase, locate_base
from hf_prompting.bases.packaged import PACKAGED_BASES
from hf_prompting.bases.source import BaseModelSource, GgufFile, PackageFile
from hf_prompting.bases.tasks import BASE_TASKS, base_task_of

__all__ = [
    "BASE_TASKS",
    "PACKAGED_BASES",
    "BaseFingerprint",
    "BaseModelSource",
    "GgufFile",
    "LocatedBase",
    "PackageFile",
    "base_task_of",
    "compare_bases",
    "find_folder",
    "fingerprint_base",
    "hub_problem",
    "load_base_model",
    "load_base_tokenizer",
    "locate_base",
    "remember_folder",
]
