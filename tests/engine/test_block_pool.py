"""The block pool against a naive model of holders, free order and names."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rillm.engine.block_pool import NULL_BLOCK, BlockHash, BlockPool, OutOfBlocksError, block_hash

NUM_BLOCKS = 6
NAMES = [BlockHash(bytes([i]) * 16) for i in range(8)]


class PoolAgainstNaiveModel(RuleBasedStateMachine):
    """Sequences hold lists of blocks; names are given to held blocks only, as the engine does."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS)
        self.free_order = list(range(1, NUM_BLOCKS + 1))
        self.tables: list[list[int]] = []
        self.names: dict[BlockHash, int] = {}

    @rule(count=st.integers(0, NUM_BLOCKS + 2))
    def allocate(self, count: int) -> None:
        if count > len(self.free_order):
            with pytest.raises(OutOfBlocksError):
                self.pool.allocate(count)
            return
        taken = self.pool.allocate(count)
        assert taken == self.free_order[:count]
        del self.free_order[:count]
        self.names = {name: b for name, b in self.names.items() if b not in taken}
        if taken:
            self.tables.append(taken)

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        table = self.tables.pop(data.draw(st.integers(0, len(self.tables) - 1)))
        self.pool.release(table)
        held = self.held()
        self.free_order += [b for b in reversed(table) if not held[b]]

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        table = data.draw(st.sampled_from(self.tables))
        self.pool.hold(table)
        self.tables.append(list(table))

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def remember(self, data: st.DataObject, name: BlockHash) -> None:
        block_id = data.draw(st.sampled_from(data.draw(st.sampled_from(self.tables))))
        # A block has one content and so one name; naming it the same again is allowed.
        if all(known == name for known, b in self.names.items() if b == block_id):
            self.pool.remember(block_id, name)
            self.names.setdefault(name, block_id)

    @rule(names=st.lists(st.sampled_from(NAMES), max_size=4, unique=True))
    def reuse_what_is_found(self, names: list[BlockHash]) -> None:
        expected = []
        for name in names:
            if name not in self.names:
                break
            expected.append(self.names[name])
        assert self.pool.find(names) == expected
        free = [b for b in expected if b in self.free_order]
        assert self.pool.num_free_among(expected) == len(free)
        if expected:
            self.pool.hold(expected)
            self.free_order = [b for b in self.free_order if b not in expected]
            self.tables.append(expected)

    @rule()
    def forget_all(self) -> None:
        self.pool.forget_all()
        self.names = {}

    @invariant()
    def agrees(self) -> None:
        self.pool.check()
        assert self.pool.num_free == len(self.free_order)
        held = self.held()
        for block_id in range(1, NUM_BLOCKS + 1):
            assert self.pool.is_shared(block_id) == (held[block_id] > 1)
        for name in NAMES:
            assert self.pool.find([name]) == ([self.names[name]] if name in self.names else [])

    def held(self) -> Counter[int]:
        return Counter(b for table in self.tables for b in table)


TestPoolAgainstNaiveModel = PoolAgainstNaiveModel.TestCase
TestPoolAgainstNaiveModel.settings = settings(max_examples=60, stateful_step_count=40)


def test_an_allocation_that_does_not_fit_takes_nothing() -> None:
    pool = BlockPool(3)
    pool.allocate(1)
    with pytest.raises(OutOfBlocksError):
        pool.allocate(3)
    assert pool.num_free == 2
    assert NULL_BLOCK not in pool.allocate(2)


def test_of_a_released_prefix_the_tail_is_evicted_first() -> None:
    pool = BlockPool(3)
    table = pool.allocate(3)
    for block_id, name in zip(table, NAMES, strict=False):
        pool.remember(block_id, name)
    pool.release(table)
    pool.allocate(1)
    assert pool.find(NAMES[:3]) == table[:2]
    pool.allocate(1)
    assert pool.find(NAMES[:3]) == table[:1]


def test_of_two_equal_blocks_the_first_stays_and_the_second_is_not_found() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    pool.remember(first, NAMES[0])
    pool.remember(second, NAMES[0])
    assert pool.find([NAMES[0]]) == [first]
    pool.release([second])
    assert pool.allocate(1) == [second]
    assert pool.find([NAMES[0]]) == [first]


tokens = st.lists(st.integers(0, 300_000), min_size=4, max_size=4)
salts = st.none() | st.text("ab\0", min_size=1, max_size=12)
chains = st.tuples(salts, st.lists(tokens, min_size=1, max_size=3))


def chain_hash(salt: str | None, blocks: list[list[int]]) -> BlockHash:
    name: BlockHash | None = None
    for block in blocks:
        name = block_hash(name, block, salt)
    assert name is not None
    return name


@given(chains, chains)
def test_two_blocks_have_one_name_only_if_salt_and_all_tokens_are_equal(
    one: tuple[str | None, list[list[int]]], other: tuple[str | None, list[list[int]]]
) -> None:
    assert (chain_hash(*one) == chain_hash(*other)) == (one == other)
    assert chain_hash(*one) == chain_hash(*one)


def test_salt_and_parent_change_the_name_of_the_same_tokens() -> None:
    block = [1, 2, 3, 4]
    parent = block_hash(None, block, None)
    names = {
        block_hash(None, block, None),
        block_hash(None, block, "a"),
        block_hash(None, block, "b"),
        block_hash(parent, block, None),
        block_hash(block_hash(None, block, "a"), block, "a"),
    }
    assert len(names) == 5
