"""Many texts at once: sessions, batches, streams."""

import asyncio

from ._C import Answer, Engine, Generation, Request, Session, Status, Token

__all__ = ["Answer", "Engine", "Generation", "Request", "Session", "Status", "Token"]


async def _next_of(generation: Generation) -> Token:
    """Generation.__anext__: another thread waits for the token."""
    token = await asyncio.to_thread(generation.next)
    if token is None:
        raise StopAsyncIteration
    return token
