"""Waiting in an event loop of asyncio."""

from __future__ import annotations

import asyncio
import os


async def readable(descriptor: int) -> None:
    """Wait until a descriptor is readable, as its only or one of several waiters."""
    loop = asyncio.get_running_loop()
    # A loop has one reader for a number.
    own = os.dup(descriptor)
    try:
        told = loop.create_future()
        loop.add_reader(own, lambda: told.done() or told.set_result(None))
        try:
            await told
        finally:
            loop.remove_reader(own)
    finally:
        os.close(own)
