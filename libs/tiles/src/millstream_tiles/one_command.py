"""Sends one command without what the client does around it (retries, spans, metrics), which is a third of a short read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import ConnectionError, ResponseError


def send(client: Any, command: Sequence[Any]) -> Any:
    """The reply to a command that may be sent twice. Raises what the client raises.

    A connection that turned out to be dead is the client's own business: it connects anew, as often as it is told to.
    """
    kind: type = type(client)
    if kind is not redis.Redis:  # a cluster's client knows to which node it goes
        return client.execute_command(*command)
    pool: Any = client.connection_pool
    try:
        connection: Any = pool.get_connection()
        try:
            connection.send_command(*command)
            return connection.read_response()
        except ResponseError:
            raise
        except BaseException:  # the rest of a reply may still come: nobody else may read it as theirs
            connection.disconnect()
            raise
        finally:
            pool.release(connection)
    except ConnectionError:
        return client.execute_command(*command)


async def send_async(client: Any, command: Sequence[Any]) -> Any:
    """`send` for the event loop."""
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
