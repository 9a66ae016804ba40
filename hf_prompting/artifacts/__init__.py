"""Step 8 of the data flow: a folder that is written whole or not at all, its model card, and its way to the Hub."""

from hf_prompting.artifacts.folder import atomic_folder, refuse_existing
from hf_prompting.artifacts.lock import output_lock
from hf_prompting.artifacts.model_card import CardContents, model_card, write_card
from hf_prompting.artifacts.push import Pushed, push_folder, push_space
from hf_prompting.artifacts.versions import installed_versions

__all__ = [
    "CardContents",
    "Pushed",
    "atomic_folder",
    "installed_versions",
    "model_card",
    "output_lock",
    "push_folder",
    "push_space",
    "refuse_existing",
    "write_card",
]
