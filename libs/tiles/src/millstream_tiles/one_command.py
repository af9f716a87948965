"""Sends one command without what the client does around it (pool, retries, spans, metrics), which is half of a short read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import ConnectionError, ResponseError


class Direct:
    """Commands over connections that are taken out of the client's pool once, and kept: one for each thread that asks at once.

    They are the client's for all else, so that closing it closes them. One that turned out to be dead is the client's own
    business: it connects anew, as often as it is told to.
    """

    def __init__(self, client: Any) -> None:
        kind: type = type(client)
        self._client = client
        self._one_server = kind is redis.Redis  # a cluster's client knows to which node it goes
        self._idle: list[Any] = []
        """Connections on which nothing is under way; a list's own append and pop are safe among threads."""

    def send(self, command: Sequence[Any]) -> Any:
        """The reply to a command that may be sent twice. Raises what the client raises."""
        if not self._one_server:
            return self._client.execute_command(*command)
        try:
            connection = self._taken()
            try:
                connection.send_command(*command)
                reply = connection.read_response()
            except ResponseError:
                self._idle.append(connection)
                raise
            except BaseException:  # the rest of a reply may still come: nobody else may read it as theirs
                connection.disconnect()
                self._client.connection_pool.release(connection)
                raise
            self._idle.append(connection)
            return reply
        except ConnectionError:
            return self._client.execute_command(*command)

    def _taken(self) -> Any:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._client.connection_pool.get_connection()
        if connection.pid != os.getpid():  # the socket is the parent's, who goes on with it
            self._idle.clear()
            return self._client.connection_pool.get_connection()
        return connection


async def send_async(client: Any, command: Sequence[Any]) -> Any:
    """The same for the event loop, by a connection from the pool each time: there it costs nothing that can be measured."""
    kind: type = type(client)
    if kind is not redis.asyncio.Redis:
        return await client.execute_command(*command)
    pool: Any = client.connection_pool  # whose methods have no types
    try:
        connection: Any = await pool.get_connection()
        try:
            await connection.send_command(*command)
            return await connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)
    except ConnectionError:
        return await client.execute_command(*command)
