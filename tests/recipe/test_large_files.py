"""Slow: a file of 100,000 rows is classified in little more memory than the model's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launched import run_python
from tiny_recipes import recipe_values, write_base, write_recipe

NUM_ROWS = 100_000
GIGABYTE = 10**9
MEASURE = """
import resource, sys
from hf_prompting.recipe import prediction
from pathlib import Path

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

classifier = prediction.load_classifier(sys.argv[1], base_model=sys.argv[2])
warm = prediction.rows_of_texts(classifier.template, ["a text"] * 64, [])
list(prediction.predict_rows(classifier, warm, batch_size=64))
before = peak()
rows = prediction.rows_of_file(classifier.template, Path(sys.argv[3]), [])
found = prediction.predict_rows(classifier, rows, batch_size=64, batches_ahead=prediction.BATCHES_AHEAD)
count = sum(1 for row in found if row["label"])
print(count, peak() - before)
"""


@pytest.mark.slow
def test_a_hundred_thousand_rows_stream_through_in_under_a_gigabyte(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe", recipe_values(write_base(tmp_path / "base")))
    made = run_python("-m", "hf_prompting", "run", "recipe", "--output-dir", "saved", "--smoke", cwd=tmp_path)
    assert made.returncode == 0, made.stderr[-2000:]
    with (tmp_path / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(NUM_ROWS):
            padding = "x" * 5_000  # half a gigabyte in all, of which the template's field is a small part
            file.write(json.dumps({"text": f"row {number} was fine", "raw": padding}) + "\n")
    done = run_python("-c", MEASURE, "saved", "base", "rows.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    count, grown = map(int, done.stdout.split())
    assert count == NUM_ROWS
    assert grown < GIGABYTE, f"{grown / GIGABYTE:.2f} GB more than the model needed"
