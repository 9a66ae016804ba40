"""The label words as one tree, so that pieces which words share are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LabelTrie:
    """Prefix tree over all label words.

    A *node* is a prefix that some word continues; node 0 is the empty prefix at the answer slot. Each word is a list of
    *steps* (node, piece): the piece is scored from the hidden state at the node.

    Attributes:
        parents: parent node of each node; -1 for node 0. Parents come before children, level by level.
        pieces: last piece of each node's prefix; -1 for node 0.
        depths: number of pieces of each node's prefix.
        words: steps of every word, words in the order given.
    """

    parents: tuple[int, ...]
    pieces: tuple[int, ...]
    depths: tuple[int, ...]
    words: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def build(cls, words: Sequence[Sequence[int]]) -> LabelTrie:
        """Build the tree of words given as pieces.

        Example:
            >>> trie = LabelTrie.build([(5, 6), (5, 7), (8,)])
            >>> trie.parents, trie.pieces, trie.words
            ((-1, 0), (-1, 5), (((0, 5), (1, 6)), ((0, 5), (1, 7)), ((0, 8),)))
        """
        prefixes = {tuple(word[:end]) for word in words for end in range(1, len(word))}
        ordered: list[tuple[int, ...]] = [(), *sorted(prefixes, key=lambda prefix: (len(prefix), prefix))]
        number = {prefix: node for node, prefix in enumerate(ordered)}
        return cls(
            parents=tuple(number[prefix[:-1]] if prefix else -1 for prefix in ordered),
            pieces=tuple(prefix[-1] if prefix else -1 for prefix in ordered),
            depths=tuple(len(prefix) for prefix in ordered),
            words=tuple(tuple((number[tuple(word[:i])], piece) for i, piece in enumerate(word)) for word in words),
        )

    @property
    def num_nodes(self) -> int:
        """Number of nodes, the root included."""
        return len(self.parents)

    def levels(self) -> list[list[int]]:
        """Return the nodes of each depth, the root's level first."""
        return [[n for n, depth in enumerate(self.depths) if depth == level] for level in range(max(self.depths) + 1)]

    def branches(self) -> list[tuple[list[int], list[int]]]:
        """Return (nodes, pieces) of every path from below the root to a node that no other node continues."""
        inner = set(self.parents)
        paths = []
        for node in range(1, self.num_nodes):
            if node not in inner:
                nodes = []
                while node > 0:
                    nodes.append(node)
                    node = self.parents[node]
                nodes.reverse()
                paths.append((nodes, [self.pieces[n] for n in nodes]))
        return paths

    def steps(self) -> tuple[list[list[int]], list[list[int]]]:
        """Return node and piece of each step of each word, as rows of one length; a piece of -1 fills up.

        Example:
            >>> LabelTrie.build([(5, 6), (8,)]).steps()
            ([[0, 1], [0, 0]], [[5, 6], [8, -1]])
        """
        longest = max(map(len, self.words))
        filled = [[*word, *[(0, -1)] * (longest - len(word))] for word in self.words]
        return [[node for node, _ in word] for word in filled], [[piece for _, piece in word] for word in filled]
