"""Label words: from a label's words to the class score."""

from hf_prompting.verbalizers.label_words import LabelWordIds, tokenize_label_words
from hf_prompting.verbalizers.trie import LabelTrie
from hf_prompting.verbalizers.verbalizer import Verbalizer

__all__ = ["LabelTrie", "LabelWordIds", "Verbalizer", "tokenize_label_words"]
