"""Who holds which block of keys and values: counts, shared prompts, eviction. Pure bookkeeping; it knows no model.

A block is room for `BLOCK` tokens. What happens to one:

    free → held by one sequence → held by several that begin with the same prompt → kept, held by none → free

Only whole blocks of a prompt are shared: keys and values of decoded tokens differ in bytes from those of the same
tokens as a prompt, so sharing them would make a seeded answer depend on what ran before. A shared block is never
written again, so none is ever copied.

When the cache is full: a sequence is promised at the start all it may need, and waits until that is there; one that
could never fit is refused at once. So a running sequence always gets its next block: none is dropped or computed twice.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import TypeAlias

from puna.errors import LoadFailed

BLOCK = 32

CACHE_SHARE = 0.5
"""Of the memory that is left once the weights are in, how much the cache may take."""

BlockKey: TypeAlias = bytes


def blocks_for(tokens: int) -> int:
    """How many blocks hold that many tokens."""
    return -(-tokens // BLOCK)


def capacity_for(num_ctx: int, slots: int, bytes_per_block: int, left: int) -> int:
    """How many blocks the cache gets: a full context for every slot, or what half of the memory `left` holds.

    With fewer than all, requests wait for each other's room. LoadFailed when not even one full context fits.
    """
    most = int(left * CACHE_SHARE) // bytes_per_block
    one = blocks_for(num_ctx)
    if most < one:
        raise LoadFailed(
            f"a context of {num_ctx} tokens needs {one * bytes_per_block >> 20} MiB of cache, and only "
            f"{int(left * CACHE_SHARE) >> 20} MiB may be taken for it; ask for a smaller context (num_ctx)"
        )
    return min(one * slots, most)


def prompt_keys(prompt: Sequence[int]) -> tuple[BlockKey, ...]:
    """A key for each whole block of a prompt; it stands for that block and all before it."""
    keys: list[BlockKey] = []
    key = b""
    for start in range(0, len(prompt) - BLOCK + 1, BLOCK):
        tokens = struct.pack(f"<{BLOCK}I", *prompt[start : start + BLOCK])
        key = blake2b(key + tokens, digest_size=16).digest()
        keys.append(key)
    return tuple(keys)


@dataclass(slots=True, eq=False)
class Table:
    """The blocks of one sequence, in order.

    `cached`: how many it found ready. `promised`: how many it may still take. `published`: how many whole blocks of its
    prompt are computed. `own`: the keys that others wait for it to publish.
    """

    keys: tuple[BlockKey, ...]
    blocks: list[int]
    cached: int
    promised: int
    published: int
    own: set[BlockKey] = field(default_factory=set)


class WaitReason(Enum):
    """Why a sequence cannot start now."""

    ROOM = "too few blocks are free"
    PROMPT = "another sequence is just computing a block that this one begins with"


class Cache:
    """The blocks of keys and values of all sequences.

    `capacity`: how many blocks there are; they are numbered from 0.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = list(range(capacity - 1, -1, -1))
        self._holders: dict[int, int] = {}
        self._block_of: dict[BlockKey, int] = {}
        self._kept: OrderedDict[int, BlockKey] = OrderedDict()
        self._key_of: dict[int, BlockKey] = {}
        self._being_made: set[BlockKey] = set()
        self._promised = 0

    @property
    def used(self) -> int:
        """Blocks that sequences hold now."""
        return len(self._holders)

    @property
    def kept(self) -> int:
        """Blocks that nobody holds but whose prompt is still known."""
        return len(self._kept)

    @property
    def open(self) -> int:
        """Blocks that could be promised now."""
        return len(self._free) + len(self._kept) - self._promised

    def admit(self, keys: tuple[BlockKey, ...], tokens: int, shareable: int) -> Table | WaitReason:
        """Room for a sequence that may grow to `tokens`; it finds at most its `shareable` first blocks ready.

        A block that another one is just computing is waited for: that is cheaper than computing it twice.
        """
        found: list[int] = []
        for key in keys[:shareable]:
            block = self._block_of.get(key)
            if block is None:
                if key in self._being_made:
                    return WaitReason.PROMPT
                break
            found.append(block)
        promised = blocks_for(tokens) - len(found)
        revived = sum(block in self._kept for block in found)
        if promised > self.open - revived:
            return WaitReason.ROOM
        for block in found:
            self._kept.pop(block, None)
            self._holders[block] = self._holders.get(block, 0) + 1
        self._promised += promised
        own = {key for key in keys[len(found) :] if key not in self._block_of and key not in self._being_made}
        self._being_made |= own
        return Table(keys, found, len(found), promised, len(found), own)

    def extend(self, table: Table, tokens: int) -> None:
        """Give a sequence the blocks that its first `tokens` tokens need."""
        for _ in range(blocks_for(tokens) - len(table.blocks)):
            table.promised -= 1
            self._promised -= 1
            block = self._take()
            self._holders[block] = 1
            table.blocks.append(block)

    def publish(self, table: Table, tokens: int) -> None:
        """The first `tokens` tokens of a sequence are computed: whole blocks of its prompt are now there for others."""
        whole = min(tokens // BLOCK, len(table.keys))
        for place in range(table.published, whole):
            key, block = table.keys[place], table.blocks[place]
            if key in table.own:
                table.own.discard(key)
                self._being_made.discard(key)
                self._block_of[key] = block
                self._key_of[block] = key
        table.published = max(table.published, whole)

    def release(self, table: Table) -> None:
        """A sequence is over: its blocks go back; those of its prompt stay known until the room is needed."""
        self._promised -= table.promised
        self._being_made -= table.own
        table.promised = 0
        table.own.clear()
        for block in reversed(
            table.blocks
        ):  # the deepest is the first to be evicted: without it the others still serve
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            del self._holders[block]
            key = self._key_of.get(block)
            if key is None:
                self._free.append(block)
            else:
                self._kept[block] = key
        table.blocks.clear()

    def _take(self) -> int:
        return self._free.pop() if self._free else self._evict()

    def _evict(self) -> int:
        block, key = self._kept.popitem(last=False)
        del self._block_of[key], self._key_of[block]
        return block
