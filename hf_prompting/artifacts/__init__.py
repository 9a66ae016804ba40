"""Step 8 of the data flow: a folder that is written whole or not at all, and its model card."""

from hf_prompting.artifacts.folder import atomic_folder, refuse_existing
from hf_prompting.artifacts.lock import output_lock
from hf_prompting.artifacts.model_card import CardContents, model_card, write_card
from hf_prompting.artifacts.versions import installed_versions

__all__ = [
    "CardContents",
    "atomic_folder",
    "installed_versions",
    "model_card",
    "output_lock",
    "refuse_existing",
    "write_card",
]
