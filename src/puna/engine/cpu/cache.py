"""Who holds which block of keys and values: counts, shared beginnings, eviction. Pure bookkeeping; it knows no model.

A block is room for `block_size` tokens. What happens to one:

    free → held by one sequence → held by several that begin alike → kept, held by none → free

A whole block is found by what it holds: its tokens, and all those before them. Whether they came as a prompt or were
decoded makes no difference to a byte of it. So the next turn of a conversation finds all of the one before, but for
its last, open block. A shared block is never written again, so none is ever copied.

How much is kept: `capacity` blocks at most, held and kept together (see `capacity_for`). What nobody holds is kept
until its room is needed; then that goes first which was left longest ago, and of one sequence its end before its
beginning.

When the cache is full: a sequence is promised at the start all it may need, and waits until that is there; one that
could never fit is refused at once. So a running sequence always gets its next block: none is dropped or computed twice.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import TypeAlias

from puna.errors import LoadFailed

CACHE_SHARE = 0.5
"""Of the memory that is left once the weights are in, how much the cache may take."""

BlockKey: TypeAlias = bytes


def blocks_for(tokens: int, block_size: int) -> int:
    """How many blocks hold that many tokens."""
    return -(-tokens // block_size)


def capacity_for(num_ctx: int, slots: int, *, block_size: int, bytes_per_block: int, left: int) -> int:
    """How many blocks the cache gets: a full context for every slot, or what half of the memory `left` holds.

    With fewer than all, requests wait for each other's room. LoadFailed when not even one full context fits.
    """
    room = max(int(left * CACHE_SHARE), 0)
    most = room // bytes_per_block
    one = blocks_for(num_ctx, block_size)
    if most < one:
        raise LoadFailed(
            f"a context of {num_ctx} tokens needs {one * bytes_per_block >> 20} MiB of cache, and only "
            f"{room >> 20} MiB may be taken for it; ask for a smaller context (num_ctx)"
        )
    return min(one * slots, most)


def block_keys(tokens: Sequence[int], block_size: int, keys: Sequence[BlockKey] = ()) -> list[BlockKey]:
    """A key for each whole block of a text; it stands for that block and all before it. `keys`: those already known."""
    found = list(keys)
    key = found[-1] if found else b""
    for start in range(len(found) * block_size, len(tokens) - block_size + 1, block_size):
        key = blake2b(key + array("I", tokens[start : start + block_size]).tobytes(), digest_size=16).digest()
        found.append(key)
    return found


@dataclass(slots=True, eq=False)
class Table:
    """The blocks of one sequence, in order.

    `keys`: of its first blocks, as far as they are known. `cached`: how many it found ready. `promised`: how many it
    may still take. `published`: how many whole blocks of it are computed. `own`: the keys that others wait for it to
    publish.
    """

    keys: list[BlockKey]
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

    `capacity`: how many blocks there are; they are numbered from 0. `block_size`: tokens of one.
    """

    def __init__(self, capacity: int, block_size: int) -> None:
        self.capacity = capacity
        self.block_size = block_size
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
        """Blocks that nobody holds but whose content is still known."""
        return len(self._kept)

    @property
    def open(self) -> int:
        """Blocks that could be promised now."""
        return len(self._free) + len(self._kept) - self._promised

    def admit(self, keys: Sequence[BlockKey], tokens: int, shareable: int) -> Table | WaitReason:
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
        promised = blocks_for(tokens, self.block_size) - len(found)
        revived = sum(block in self._kept for block in found)
        if promised > self.open - revived:
            return WaitReason.ROOM
        for block in found:
            self._kept.pop(block, None)
            self._holders[block] = self._holders.get(block, 0) + 1
        self._promised += promised
        own = {key for key in keys[len(found) :] if key not in self._block_of and key not in self._being_made}
        self._being_made |= own
        return Table(list(keys), found, len(found), promised, len(found), own)

    def extend(self, table: Table, tokens: int) -> None:
        """Give a sequence the blocks that its first `tokens` tokens need."""
        for _ in range(blocks_for(tokens, self.block_size) - len(table.blocks)):
            table.promised -= 1
            self._promised -= 1
            block = self._take()
            self._holders[block] = 1
            table.blocks.append(block)

    def publish(self, table: Table, tokens: Sequence[int], done: int) -> None:
        """The first `done` of a sequence's `tokens` are computed: whole blocks of them are now there for others.

        What two sequences have computed at once stays with the first; the other's own is forgotten with it.
        """
        whole = done // self.block_size
        if whole <= table.published:
            return
        if whole > len(table.keys):
            table.keys = block_keys(tokens[: whole * self.block_size], self.block_size, table.keys)
        for place in range(table.published, whole):
            key, block = table.keys[place], table.blocks[place]
            if key in table.own:
                table.own.discard(key)
                self._being_made.discard(key)
            if key not in self._block_of:
                self._block_of[key] = block
                self._key_of[block] = key
        table.published = whole

    def release(self, table: Table) -> None:
        """A sequence is over: its blocks go back; whole ones stay known until the room is needed."""
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
