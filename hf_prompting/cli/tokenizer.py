"""``tokenizer``: train a tokenizer on columns of files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hf_prompting.cli.errors import user_errors
from hf_prompting.cli.options import Debug


def tokenizer(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Rows: .jsonl, .json, .csv, .tsv, .parquet or .txt.")
    ],
    output_dir: Annotated[Path, typer.Option("--output-dir", help="Folder to save.")],
    field: Annotated[
        list[str] | None, typer.Option("--field", help="Column with texts; repeatable. Default: text.")
    ] = None,
    model: Annotated[Literal["unigram", "bpe"], typer.Option("--model", help="How words are cut.")] = "unigram",
    vocab_size: Annotated[int, typer.Option("--vocab-size", help="Tokens of all kinds together.")] = 8000,
    num_sentinels: Annotated[
        int, typer.Option("--num-sentinels", min=0, help="<extra_id_0> and so on, for span corruption.")
    ] = 100,
    num_soft_tokens: Annotated[
        int, typer.Option("--num-soft-tokens", min=0, help="<|soft_0|> and so on, at the end of the vocabulary.")
    ] = 0,
    add_bos: Annotated[bool, typer.Option("--add-bos", help="Put <s> before every text.")] = False,
    character_coverage: Annotated[
        float, typer.Option("--character-coverage", help="Share of characters with a piece; rarer ones become bytes.")
    ] = 0.9995,
    debug: Debug = False,
) -> None:
    """Train a tokenizer that never meets an unknown word, and gives every text back exactly.

    AutoTokenizer.from_pretrained loads the folder. A character without a piece becomes its bytes.

    Examples:

    \b
    hf-prompting tokenizer train.jsonl --field en --field zh --output-dir my-tokenizer
    hf-prompting tokenizer book.txt notes.csv --model bpe --vocab-size 4000 --output-dir my-tokenizer
    """
    with user_errors(debug):
        from hf_prompting.artifacts import atomic_folder, refuse_existing
        from hf_prompting.data import load_rows
        from hf_prompting.data.tokenizer_training import train_tokenizer

        refuse_existing(output_dir, overwrite=False)
        texts: list[str] = []
        for file in files:
            rows = load_rows(file.parent, file.name)
            for column in field or ["text"]:
                rows.require_texts([column])
                texts.extend(str(text) for text in rows.values(column))
        trained = train_tokenizer(
            texts,
            kind=model,
            vocab_size=vocab_size,
            num_sentinels=num_sentinels,
            num_soft_tokens=num_soft_tokens,
            add_bos=add_bos,
            character_coverage=character_coverage,
        )
        num_tokens = sum(map(len, trained(texts)["input_ids"]))
        with atomic_folder(output_dir) as folder:
            trained.save_pretrained(folder)
        print(f"{len(trained):,} tokens; {num_tokens / len(texts):.1f} for a text on average. Saved in {output_dir}")
