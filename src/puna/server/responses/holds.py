"""Which conversations a response is being made in: one at a time, in all servers that share a state.

What came before a response is read when it begins, and what it adds is kept at its end: of two at once one would answer
without the other. A hold is a record that names who has it, so that it ends with a server that is killed.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from weakref import WeakValueDictionary

from puna.errors import Conflict, InvalidRequest, PunaError
from puna.server.responses.past import expect_conversation
from puna.state.records import Delete, Put, Record
from puna.state.state import State


class ServerClaim:
    """This server, by the name that what it works on is kept with: a claim that goes with its process."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.name = f"responses-{secrets.token_hex(8)}"

    async def begin(self) -> None:
        """From now on whoever shares the state sees that it works. To be called before anything is kept in its name."""
        await self._state.claim(self.name, own=True)

    async def lives(self, name: str) -> bool:
        """Whether the server of that name, this one or another, still works."""
        return await self._state.claimed(name)


class Hold:
    """One response's right to a conversation. It ends when it is released, and with the response that has it."""

    def __init__(self, state: State, record: Record) -> None:
        self._state = state
        self.record = record
        self.over = False

    @property
    def conversation(self) -> str:
        return self.record.parent

    @property
    def freed(self) -> Delete:
        """The change that ends it, to be made with others. `over` is to be set after it."""
        return Delete("hold", self.record.id, self.record.owner)

    async def release(self) -> None:
        """Nothing happens when it has ended. Where it cannot be kept that it did, this server still knows."""
        if not self.over:
            self.over = True
            with suppress(PunaError):
                await self._state.apply(self.freed)


class Holds:
    """All that this process has. One event loop only."""

    def __init__(self, state: State, claim: ServerClaim) -> None:
        self._state = state
        self._claim = claim
        # Of one that nobody released, because its response never began, nothing is left either.
        self._own: WeakValueDictionary[str, Hold] = WeakValueDictionary()

    async def take(self, conversation: str, owner: str) -> Hold:
        """NotFound where there is no such conversation; `conversation_locked` while another response has it."""
        await expect_conversation(self._state, conversation, owner, "conversation")
        self._expect_free_here(conversation)
        hold = self._own[conversation] = Hold(self._state, _record(conversation, owner, self._claim))
        try:
            await self._claim.begin()
            while not await self._kept(hold):
                pass
        except BaseException:
            hold.over = True
            raise
        return hold

    async def expect_free(self, conversation: str, owner: str) -> None:
        """`conversation_locked` while a response has it."""
        self._expect_free_here(conversation)
        kept = await self._state.get("hold", _id(conversation), owner)
        if kept is not None:
            await self._expect_left(kept)

    def _expect_free_here(self, conversation: str) -> None:
        here = self._own.get(conversation)
        if here is not None and not here.over:
            raise _locked(conversation)

    async def _expect_left(self, kept: Record) -> None:
        """What is kept is of a server that ended, or of this one, which knows better what it has."""
        server = str(kept.body["server"])
        if server != self._claim.name and await self._claim.lives(server):
            raise _locked(kept.parent)

    async def _kept(self, hold: Hold) -> bool:
        """Whether it is; if not, it is to be tried again: others came and went meanwhile."""
        with suppress(Conflict):
            await self._state.apply(Put(hold.record, new=True))
            return True
        there = await self._state.get("hold", hold.record.id, hold.record.owner)
        if there is None:
            return False
        await self._expect_left(there)
        with suppress(Conflict):
            await self._state.apply(Put(hold.record, over=there))
            return True
        return False


def _id(conversation: str) -> str:
    return f"hold_{conversation.removeprefix('conv_')}"


def _record(conversation: str, owner: str, claim: ServerClaim) -> Record:
    """No two are the same, so that one is not taken for another."""
    return Record(
        kind="hold",
        id=_id(conversation),
        owner=owner,
        body={"server": claim.name, "token": secrets.token_hex(8)},
        created=time.time(),
        parent=conversation,
    )


def _locked(conversation: str) -> InvalidRequest:
    return InvalidRequest(
        f"The conversation '{conversation[:200]}' has a response under way: ask again when that has ended.",
        param="conversation",
        code="conversation_locked",
    )
