"""Fetch transformers' own common tests at run time, for the installed version; nothing of them is kept.

The sdist on PyPI holds only the files directly under ``tests/``. Four helper modules that those import are not in it:
the export and generation mixins, the distributed launcher, and a table of common configuration values. They are
replaced here by minimal modules of our own so that the files can be imported; the tests of those mixins do not run.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

PACKAGE = "transformers_tests"
STAND_INS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "distributed_testing_utils.py": "def run_distributed(*args, **kwargs):\n    raise NotImplementedError\n",
    "utils/test_configuration_utils.py": (
        "config_common_kwargs = {\n"
        "    'return_dict': False,\n"
        "    'output_hidden_states': True,\n"
        "    'dtype': 'float16',\n"
        "    'chunk_size_feed_forward': 5,\n"
        "    'architectures': ['AnyModel'],\n"
        "    'id2label': {0: 'label'},\n"
        "    'label2id': {'label': 0},\n"
        "    'problem_type': 'regression',\n"
        "}\n"
    ),
}


def fetch_common_tests(folder: Path) -> Path:
    """Unpack the tests as a package in ``folder`` and return the folder to put on the path."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wanted = f"transformers=={version('transformers')}"
    options = ["--no-deps", "--no-binary", "transformers", "--no-build-isolation", "--dest", str(folder)]
    subprocess.run([*pip, "download", *options, wanted], check=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder), "parameterized"], check=True)
    package = folder / PACKAGE
    package.mkdir()
    (archive,) = folder.glob("transformers-*.tar.gz")
    with tarfile.open(archive) as sdist:
        for member in sdist:
            parts = Path(member.name).parts
            if len(parts) == 3 and parts[1] == "tests" and member.name.endswith(".py"):
                source = sdist.extractfile(member)
                assert source is not None
                (package / parts[2]).write_bytes(source.read())
    for name, text in STAND_INS.items():
        path = package / name
        assert not path.exists(), f"the sdist now holds {name}: delete its stand-in here"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for path in (package, *(child for child in package.iterdir() if child.is_dir())):
        (path / "__init__.py").touch()
    return folder
