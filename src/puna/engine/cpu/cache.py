"""Who holds which block of keys and values: counts, shared beginnings, eviction. Pure bookkeeping; it knows no model.

A block is room for `block_size` tokens. What happens to one:

    free → held by one sequence → held by several that begin alike → kept, held by none → free

A whole block is found by what it holds: its tokens, and all those before them. Whether they came as a prompt or were
decoded makes no difference to a byte of it. A shared block is never written again. The open block at the end of a
prompt or of a sequence that is over is found too, and copied, as far as its tokens are those wanted. So the next turn
of a conversation, or another choice of one prompt, computes only what is new to it.

How much is kept: `capacity` blocks at most, held and kept together (see `capacity_for`). What nobody holds is kept
until its room is needed; then that goes first which was left longest ago, and of one sequence its end before its
beginning.

When the cache is full: a sequence is promised at the start all it may need, and waits until that is there; one that
could never fit is refused at once. So a running sequence always gets its next block: none is dropped or computed twice.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import TypeAlias

from puna.errors import LoadFailed

CACHE_SHARE = 0.5
"""Of the memory that is left once the weights are in, how much the cache may take beyond one context."""

TAILS = 8
"""Open blocks behind one beginning that are found: the latest."""

BlockKey: TypeAlias = bytes

OnDisk: TypeAlias = Callable[[BlockKey], bool]
"""Whether a block can be had from the disk."""


def nowhere(key: BlockKey) -> bool:
    """OnDisk, where there is no disk."""
    return False


def blocks_for(tokens: int, block_size: int) -> int:
    """How many blocks hold that many tokens."""
    return -(-tokens // block_size)


def capacity_for(
    num_ctx: int, slots: int, *, block_size: int, bytes_per_block: int, left: int, free: int, most: int = 0
) -> int:
    """How many blocks the cache gets: a full context for every slot, or what half of the memory `left` holds, and no
    more than `most` bytes (0: all that is wanted). One context may take all that the system has `free`: who had the
    model loaded has reckoned that it fits.

    With fewer than all, requests wait for each other's room. LoadFailed when not even one full context fits.
    """
    one = blocks_for(num_ctx, block_size)
    room = min(free, most) if most else free
    if room < one * bytes_per_block:
        raise LoadFailed(
            f"a context of {num_ctx} tokens needs {one * bytes_per_block >> 20} MiB of cache, and only "
            f"{max(room, 0) >> 20} MiB may be taken for it{' (PUNA_CACHE_MEMORY)' if room == most else ''}; ask for a "
            "smaller context (num_ctx)"
        )
    shared = max(int(left * CACHE_SHARE), 0)
    if most:
        shared = min(shared, most)
    return min(one * slots, max(one, shared // bytes_per_block))


def block_keys(tokens: Sequence[int], block_size: int, keys: Sequence[BlockKey] = ()) -> list[BlockKey]:
    """A key for each whole block of a text; it stands for that block and all before it. `keys`: those already known."""
    found = list(keys)
    key = found[-1] if found else b""
    for start in range(len(found) * block_size, len(tokens) - block_size + 1, block_size):
        key = _key(key, tokens[start : start + block_size])
        found.append(key)
    return found


def end_key(tokens: Sequence[int], block_size: int, keys: Sequence[BlockKey]) -> BlockKey:
    """A key for all of a text. `keys`: of its whole blocks."""
    return _key(keys[-1] if keys else b"", tokens[len(keys) * block_size :])


def _key(before: BlockKey, tokens: Sequence[int]) -> BlockKey:
    return blake2b(before + array("I", tokens).tobytes(), digest_size=16).digest()


@dataclass(slots=True, eq=False)
class Table:
    """The blocks of one sequence, in order.

    `keys`: of its first blocks, as far as they are known. `found`: how many tokens of it are ready. `promised`: how
    many blocks it may still take. `published`: how many whole blocks of it are computed. `own`: the keys that others
    wait for it to publish. `copied`: a block, and one of its own that must become the same before anything is computed.
    `stored`: how many whole blocks behind those that are found the disk has.
    """

    keys: list[BlockKey]
    blocks: list[int]
    found: int
    promised: int
    published: int
    own: set[BlockKey] = field(default_factory=set)
    copied: tuple[int, int] | None = None
    stored: int = 0


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
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._key_of: dict[int, BlockKey] = {}
        self._tails: dict[BlockKey, dict[int, tuple[int, ...]]] = {}
        self._behind: dict[int, BlockKey] = {}
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

    def find(self, key: BlockKey) -> int | None:
        """The block that holds what `key` stands for."""
        return self._block_of.get(key)

    def admit(
        self,
        tokens: Sequence[int],
        keys: Sequence[BlockKey],
        room: int,
        findable: int,
        end: BlockKey | None = None,
        stored: OnDisk = nowhere,
    ) -> Table | WaitReason:
        """Room for a sequence of these `tokens` that may grow to `room`; it finds at most its first `findable` ready.

        A block that another one is just computing is waited for: that is cheaper than computing it twice. So is the
        end of the very same text (`end`: its key).
        """
        found: list[int] = []
        wanted = keys[: findable // self.block_size]
        for key in wanted:
            block = self._block_of.get(key)
            if block is None:
                if key in self._being_made:
                    return WaitReason.PROMPT
                break
            found.append(block)
        if end in self._being_made:
            return WaitReason.PROMPT
        promised = blocks_for(room, self.block_size) - len(found)
        revived = sum(block in self._kept for block in found)
        if promised > self.open - revived:
            return WaitReason.ROOM
        for block in found:
            self._kept.pop(block, None)
            self._holders[block] = self._holders.get(block, 0) + 1
        self._promised += promised
        own = {key for key in keys[len(found) :] if key not in self._block_of and key not in self._being_made}
        self._being_made |= own
        table = Table(list(keys), found, len(found) * self.block_size, promised, len(found), own)
        behind = wanted[len(found) :]
        table.stored = next((place for place, key in enumerate(behind) if not stored(key)), len(behind))
        if not table.stored:  # a whole block is more than any open one
            self._copy_tail(table, tokens[table.found : findable])
        if end is not None and table.found < findable:
            table.own.add(end)
            self._being_made.add(end)
        return table

    def _copy_tail(self, table: Table, wanted: Sequence[int]) -> None:
        """Let it have the open block behind what it found that agrees with the most of what it wants next."""
        tails = self._tails.get(table.keys[table.published - 1] if table.published else b"", {})
        agreed, source = max(((_agreeing(held, wanted), block) for block, held in tails.items()), default=(0, 0))
        if not agreed:
            return
        if source in self._kept:
            self._kept.move_to_end(source)
        # Should the cache be so full that the very block is what is taken, it holds what it should.
        self.extend(table, table.found + 1)
        table.copied = source, table.blocks[-1]
        table.found += agreed

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

    def remember(self, table: Table, tokens: Sequence[int], done: int) -> None:
        """The first `done` of `tokens` are computed and published: let the last of them be found though no block ends
        there."""
        if not done:
            return
        self._being_made -= table.own
        table.own.clear()
        place = (done - 1) // self.block_size
        block, begin = table.blocks[place], place * self.block_size
        self._behind[block] = beginning = table.keys[place - 1] if place else b""
        tails = self._tails.setdefault(beginning, {})
        tails.pop(block, None)
        tails[block] = tuple(tokens[begin:done])
        if len(tails) > TAILS:
            self._forget(next(iter(tails)))

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
            if block in self._key_of or block in self._behind:
                self._kept[block] = None
            else:
                self._free.append(block)
        table.blocks.clear()

    def _take(self) -> int:
        return self._free.pop() if self._free else self._evict()

    def _evict(self) -> int:
        block, _ = self._kept.popitem(last=False)
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._block_of[key]
        if block in self._behind:
            self._forget(block)
        return block

    def _forget(self, block: int) -> None:
        """Its open tokens are found no more; and the block is free, if that was all for which it was kept."""
        beginning = self._behind.pop(block)
        tails = self._tails[beginning]
        del tails[block]
        if not tails:
            del self._tails[beginning]
        if block in self._kept and block not in self._key_of:
            del self._kept[block]
            self._free.append(block)


def _agreeing(held: Sequence[int], wanted: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(held, wanted, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(held), len(wanted)))
