"""The page's own words, in English and Chinese; the browser's language chooses.

The keys begin with ``hfp_``, since Gradio has words of its own under keys such as ``file``.
"""

from __future__ import annotations

ENGLISH: dict[str, str] = {
    "hfp_one": "One text",
    "hfp_file": "Several rows",
    "hfp_soft": "Soft tokens",
    "hfp_classify": "Classify",
    "hfp_label": "Label",
    "hfp_prompt": "The prompt, token by token",
    "hfp_examples": "Examples",
    "hfp_placeholder": "Type or paste a text",
    "hfp_upload": "Rows: .jsonl, .json, .csv, .tsv or .parquet",
    "hfp_column": "Column of the file for",
    "hfp_score": "Score all rows",
    "hfp_scores": "Scores",
    "hfp_download": "Download all as JSONL",
    "hfp_nearest": "Nearest words of the vocabulary, by the cosine of their embeddings",
}
CHINESE: dict[str, str] = {
    "hfp_one": "单条文本",
    "hfp_file": "多行文件",
    "hfp_soft": "软词元",
    "hfp_classify": "分类",
    "hfp_label": "标签",
    "hfp_prompt": "提示的每个词元",
    "hfp_examples": "示例",
    "hfp_placeholder": "输入或粘贴文本",
    "hfp_upload": "文件：.jsonl、.json、.csv、.tsv 或 .parquet",
    "hfp_column": "文件中对应的列：",
    "hfp_score": "全部打分",
    "hfp_scores": "分数",
    "hfp_download": "下载全部结果（JSONL）",
    "hfp_nearest": "词表中最近的词（按嵌入的余弦）",
}
# The browser's language -> words; Gradio falls back to "en" for all other languages.
WORDS: dict[str, dict[str, str]] = {"en": ENGLISH, "zh": CHINESE, "zh-CN": CHINESE}
