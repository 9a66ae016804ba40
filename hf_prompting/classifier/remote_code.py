"""The classifier's source files as remote code: a folder that loads with ``trust_remote_code=True`` alone.

transformers copies the file that defines a class and follows relative imports in one flat folder. So the modules that
the classifier needs are written flat, ``hf_prompting/bases/load.py`` as ``hf_prompting_bases_load.py``, with imports of
each other relative. They are this library's own files otherwise: whoever trusts them can compare them.
"""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

from hf_prompting.checksums import reseal

_PACKAGE = "hf_prompting"
_HERE = Path(__file__)
_OWN_IMPORT = re.compile(rf"^(\s*)from {_PACKAGE}\.([\w.]+) import ", flags=re.MULTILINE)
_ENTRY = f"{_PACKAGE}.classifier.modeling_prompt"
AUTO_MAP = {
    "AutoConfig": f"{_PACKAGE}_classifier_configuration_prompt.PromptClassifierConfig",
    "AutoModelForSequenceClassification": f"{_PACKAGE}_classifier_modeling_prompt.PromptForSequenceClassification",
}


def write_remote_code(folder: str | os.PathLike[str]) -> list[Path]:
    """Write the code that loads a saved classifier into its folder, and name it in its config.json.

    The tokenizer needs none: its template is in tokenizer.json, which every class of transformers reads.

    Example:
        >>> write_remote_code("out")[0].name  # doctest: +SKIP
        'hf_prompting_bases.py'
    """
    target = Path(folder)
    written = []
    for name, text in sorted(_sources().items()):
        path = target / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    config = target / "config.json"
    values = {**json.loads(config.read_text(encoding="utf-8")), "auto_map": AUTO_MAP}
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    reseal(config)
    (target / "modeling_prompt.py").unlink(
        missing_ok=True
    )  # transformers' copy, which names modules that are not there
    return written


def _sources() -> dict[str, str]:
    """File name -> text of every module that the classifier needs."""
    if _HERE.name != "remote_code.py":  # this file itself is remote code: its neighbours are the others
        return {path.name: path.read_text(encoding="utf-8") for path in _HERE.parent.glob(f"{_PACKAGE}_*.py")}
    root = _HERE.parents[1]
    sources: dict[str, str] = {}
    waiting = [_ENTRY]
    while waiting:
        module = waiting.pop()
        name = f"{_flat(module)}.py"
        if name not in sources:
            text = _file(root, module).read_text(encoding="utf-8")
            sources[name] = _OWN_IMPORT.sub(lambda found: f"{found[1]}from .{_PACKAGE}_{_flat(found[2])} import ", text)
            waiting += [
                node.module
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{_PACKAGE}.")
            ]
    return sources


def _flat(module: str) -> str:
    return module.replace(".", "_")


def _file(root: Path, module: str) -> Path:
    path = root.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
