"""The family's source files as remote code: a folder that loads with ``trust_remote_code=True`` and nothing installed.

``save_pretrained`` of a class that was registered by ``register_for_auto_class`` copies the one file that defines the
class. transformers follows relative imports only, and this package writes its imports in full, so the copies are
completed here.
"""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

from hf_prompting.cpu_products import Linear
from hf_prompting.errors import HfPromptingError

_OWN_IMPORT = re.compile(r"^(\s*)from hf_prompting\.(?:seq2seq\.)?(\w+) import ", flags=re.MULTILINE)
_FILES = (
    "attention.py",
    "chunked_loss.py",
    "compiled_step.py",
    "configuration_seq2seq.py",
    "cpu_functions.py",
    "decoding_layout.py",
    "decoding_positions.py",
    "decoding_step.py",
    "generation.py",
    "growing_cache.py",
    "layers.py",
    "loss.py",
    "modeling_heads.py",
    "modeling_seq2seq.py",
    "positions.py",
    "remote_code.py",
    "stacks.py",
)
SOURCE_FILES = (
    *(Path(__file__).with_name(name) for name in _FILES),
    Path(inspect.getfile(Linear)),
    Path(inspect.getfile(HfPromptingError)),
)


def write_remote_code(folder: str | os.PathLike[str]) -> list[Path]:
    """Write the source files into a folder, with imports of each other relative, and return their paths.

    Example:
        >>> [path.name for path in write_remote_code(tmp_path)][0]  # doctest: +SKIP
        'attention.py'
    """
    written = []
    for source in SOURCE_FILES:
        path = Path(folder) / source.name
        path.write_text(_OWN_IMPORT.sub(r"\1from .\2 import ", source.read_text(encoding="utf-8")), encoding="utf-8")
        written.append(path)
    return written
