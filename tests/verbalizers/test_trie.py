"""The prefix tree of the label words."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hf_prompting.verbalizers import LabelTrie

PIECES = st.integers(min_value=1, max_value=4)
WORDS = st.lists(st.lists(PIECES, min_size=1, max_size=4).map(tuple), min_size=1, max_size=8, unique=True)


def probability(prefix: tuple[int, ...], piece: int) -> float:
    """A language model of a sort: any number that depends on the whole prefix."""
    return float(hash((prefix, piece)) % 1009) - 500.0


def prefix_of(trie: LabelTrie, node: int) -> tuple[int, ...]:
    return () if node == 0 else (*prefix_of(trie, trie.parents[node]), trie.pieces[node])


def test_a_tree_by_hand() -> None:
    trie = LabelTrie.build([(5, 6, 7), (5, 6), (5, 8, 9), (4,)])
    # Nodes: 0 (), 1 (5), 2 (5 6), 3 (5 8). The word (5 6) ends at node 2 and needs no node of its own.
    assert trie.parents == (-1, 0, 1, 1)
    assert trie.pieces == (-1, 5, 6, 8)
    assert trie.depths == (0, 1, 2, 2)
    assert trie.words == (((0, 5), (1, 6), (2, 7)), ((0, 5), (1, 6)), ((0, 5), (1, 8), (3, 9)), ((0, 4),))
    assert trie.num_nodes == 4
    assert trie.levels() == [[0], [1], [2, 3]]
    assert trie.branches() == [([1, 2], [5, 6]), ([1, 3], [5, 8])]


def test_words_of_one_piece_need_the_root_alone() -> None:
    trie = LabelTrie.build([(3,), (4,)])
    assert (trie.num_nodes, trie.levels(), trie.branches()) == (1, [[0]], [])


@given(WORDS)
@settings(max_examples=200, deadline=None)
def test_the_steps_of_a_word_sum_to_its_score(words: list[tuple[int, ...]]) -> None:
    trie = LabelTrie.build(words)
    for word, steps in zip(words, trie.words, strict=True):
        by_tree = sum(probability(prefix_of(trie, node), piece) for node, piece in steps)
        by_brute_force = sum(probability(word[:place], piece) for place, piece in enumerate(word))
        assert by_tree == by_brute_force
    total = sum(probability(prefix_of(trie, n), piece) for steps in trie.words for n, piece in steps)
    assert total == sum(probability(word[:place], piece) for word in words for place, piece in enumerate(word))


@given(WORDS)
@settings(max_examples=200, deadline=None)
def test_each_prefix_is_computed_once_and_only_where_a_word_goes_on(words: list[tuple[int, ...]]) -> None:
    trie = LabelTrie.build(words)
    prefixes = [prefix_of(trie, node) for node in range(trie.num_nodes)]
    assert len(set(prefixes)) == len(prefixes)
    assert set(prefixes) == {(), *(word[:end] for word in words for end in range(1, len(word)))}
    assert all(parent < node for node, parent in enumerate(trie.parents))
    assert [len(prefix) for prefix in prefixes] == list(trie.depths)


@given(WORDS)
@settings(max_examples=200, deadline=None)
def test_branches_and_levels_visit_every_node(words: list[tuple[int, ...]]) -> None:
    trie = LabelTrie.build(words)
    assert sorted(node for level in trie.levels() for node in level) == list(range(trie.num_nodes))
    visited = set()
    for nodes, pieces in trie.branches():
        assert [prefix_of(trie, node) for node in nodes] == [tuple(pieces[: i + 1]) for i in range(len(pieces))]
        visited.update(nodes)
    assert visited == set(range(1, trie.num_nodes))
