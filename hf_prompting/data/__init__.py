"""Step 1 of the data flow: a file or a ``datasets`` id becomes rows with named columns, then token ids and labels."""

from hf_prompting.data.chunking import chunk_texts, following_pairs
from hf_prompting.data.few_shot import sample_few_shot
from hf_prompting.data.labels import encode_labels, label_text
from hf_prompting.data.rows import Rows, load_rows
from hf_prompting.data.streaming import PlacedRow, stream_rows
from hf_prompting.data.tokenization import row_lengths, tokenize_rows

__all__ = [
    "PlacedRow",
    "Rows",
    "chunk_texts",
    "encode_labels",
    "following_pairs",
    "label_text",
    "load_rows",
    "row_lengths",
    "sample_few_shot",
    "stream_rows",
    "tokenize_rows",
]
