"""KV cache blocks: who holds which, and which full blocks can be found again by content.

Owns reference counts, the free list and the prefix cache. A block is free when nobody holds
it; a free block keeps its content, and stays findable, until it is taken for something else,
least recently freed first. Knows no sequences and no tensors.

Source: paged KV cache, Kwon et al. 2023 (arXiv:2309.06180); prefix reuse by a hash chain over
full blocks, where each hash covers everything before it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import NewType

BlockHash = NewType("BlockHash", bytes)

NULL_BLOCK = 0
"""Never allocated: padding of block tables points here."""


class OutOfBlocksError(Exception):
    """Fewer blocks are free than were asked for; nothing was taken."""


def block_hash(parent: BlockHash | None, token_ids: Sequence[int], salt: str | None) -> BlockHash:
    """Name a full block by its tokens and all tokens before it.

    Args:
        parent: hash of the block before, None for the first.
        token_ids: the block's tokens.
        salt: separates users who must not share blocks; enters with the first block.

    Returns:
        16 bytes; a cryptographic hash, since equal names mean shared memory.
    """
    start = parent if parent is not None else b"salt:" + salt.encode() if salt else b""
    digest = hashlib.blake2b(start, digest_size=16)
    digest.update(array("q", token_ids).tobytes())
    return BlockHash(digest.digest())


class BlockPool:
    """All KV cache blocks of one engine.

    Args:
        num_blocks: blocks that can be held; ids 1 to num_blocks (0 is the null block).
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._references = [0] * (num_blocks + 1)
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks + 1))
        self._by_hash: dict[BlockHash, int] = {}
        self._hashes: dict[int, BlockHash] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    def is_shared(self, block_id: int) -> bool:
        """Whether more than one holder would see a write to this block."""
        return self._references[block_id] > 1

    def allocate(self, count: int) -> list[int]:
        """Take blocks, all or none.

        Args:
            count: blocks to take, 0 or more.

        Returns:
            Block ids, least recently freed first, each held once. Their content is forgotten.

        Raises:
            OutOfBlocksError: fewer than `count` are free. Nothing was taken.
        """
        if count > len(self._free):
            raise OutOfBlocksError(f"{count} blocks asked for, {len(self._free)} free")
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block_id in taken:
            self._references[block_id] = 1
            known = self._hashes.pop(block_id, None)
            if known is not None:
                del self._by_hash[known]
        return taken

    def hold(self, block_ids: Sequence[int]) -> None:
        """Add a holder to each block, free or not."""
        for block_id in block_ids:
            if self._references[block_id] == 0:
                del self._free[block_id]
            self._references[block_id] += 1

    def release(self, block_ids: Sequence[int]) -> None:
        """Drop one holder of each block of a sequence, given in position order.

        The last ones are freed first, so that of a cached prefix the tail is evicted first.
        """
        for block_id in reversed(block_ids):
            self._references[block_id] -= 1
            if self._references[block_id] == 0:
                self._free[block_id] = None

    def find(self, hashes: Sequence[BlockHash]) -> list[int]:
        """Return the blocks of the longest known prefix of a hash chain; none is taken."""
        found = []
        for name in hashes:
            block_id = self._by_hash.get(name)
            if block_id is None:
                break
            found.append(block_id)
        return found

    def num_free_among(self, block_ids: Sequence[int]) -> int:
        """Count the blocks that holding would take from the free ones."""
        return sum(self._references[block_id] == 0 for block_id in block_ids)

    def remember(self, block_id: int, name: BlockHash) -> None:
        """Make a full, computed block findable; of equal blocks the first one stays."""
        if name not in self._by_hash:
            self._by_hash[name] = block_id
            self._hashes[block_id] = name

    def forget_all(self) -> None:
        """Empty the prefix cache; blocks in use stay in use."""
        self._by_hash.clear()
        self._hashes.clear()

    def check(self) -> None:
        """Verify the pool's own invariants.

        Raises:
            AssertionError: a block is both free and held, or neither, or a name is dangling.
        """
        assert NULL_BLOCK not in self._free
        for block_id in range(1, self.num_blocks + 1):
            assert self._references[block_id] >= 0, block_id
            assert (self._references[block_id] == 0) == (block_id in self._free), block_id
        assert {b: h for h, b in self._by_hash.items()} == self._hashes
