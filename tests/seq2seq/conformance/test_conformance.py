"""Slow: transformers' own common tests, fetched for the installed version, pass for all classes and presets."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from upstream import fetch_common_tests

HARNESS = Path(__file__).with_name("harness.py")
ROOT = Path(__file__).parents[3]
# Every reason for a skip, by the words it holds; BART skips for the first group too, the presets for the second alone.
REASONS_OF_BART = (
    "accelerator",
    "Flash Attention",
    "the kernels library",
    "MPS",
    "deepspeed",
    "omposite",  # "not composite", "not a composite model"
    "test is slow",
    "No conversion found",
    "_keep_in_fp32_modules",
    "does not support grouped_mm",
    "does not support SDPA",  # of models with several configurations
    "does not propagate hidden states",  # an encoder-decoder has two lists of them
    "No decoder-only language modeling head",
    "No subconfigs",
    "no sparse experts",
    "output_router_logits",
    "Model does not have position embeddings",
    "sliding window mask",
    "no axial RoPE",
    "Model does not have a TP plan",  # in the configuration; ours is in the stacks
)
REASONS_OF_PRESETS = ("this preset has no rotary positions", "partial rope", "No sequence-to-sequence")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[str]]:
    folder = fetch_common_tests(tmp_path_factory.mktemp("upstream"))
    (folder / "pytest.ini").write_text("[pytest]\n")
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", str(HARNESS), "-c", str(folder / "pytest.ini"), "--noconftest", "-q"]
    options = ["-p", "no:cacheprovider", "-W", "ignore", "--tb=line", "--show-capture=no", f"--junitxml={report}"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder))),
        "RUN_TRAINING_TESTS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    subprocess.run([*command, *options], env=environment, cwd=folder, check=False)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        suite = case.attrib["classname"].split(".")[-1]
        problem = next((part for part in case if part.tag in ("failure", "error", "skipped")), None)
        if problem is None:
            counts[suite]["passed"] += 1
        elif problem.tag == "skipped":
            counts[suite]["skipped"] += 1
            counts[suite][f"skip: {problem.get('message')}"] += 1
        else:
            counts[suite]["failed"] += 1
            counts[suite][f"fail: {case.attrib['name']}"] += 1
    for suite, count in counts.items():
        print(suite, {key: number for key, number in count.items() if not key.startswith("skip:")})
    return counts


@pytest.mark.slow
def test_no_common_test_fails(outcomes: dict[str, Counter[str]]) -> None:
    failed = {suite: count for suite, count in outcomes.items() if suite != "BartTest" and count["failed"]}
    assert not failed
    assert len(outcomes) == 9


@pytest.mark.slow
def test_at_least_as_many_pass_as_for_bart(outcomes: dict[str, Counter[str]]) -> None:
    bart = outcomes["BartTest"]["passed"]
    for suite in ("ModernTest", "ModernGroupedHeadsTest", "LearnedPositionsTest", "VanillaTest", "T5Test"):
        assert outcomes[suite]["passed"] >= bart > 100, suite


@pytest.mark.slow
def test_every_skip_has_a_known_reason(outcomes: dict[str, Counter[str]]) -> None:
    known = (*REASONS_OF_BART, *REASONS_OF_PRESETS)
    reasons = {
        key for suite, count in outcomes.items() if suite != "BartTest" for key in count if key.startswith("skip:")
    }
    assert not [reason for reason in reasons if not any(words in reason for words in known)]
