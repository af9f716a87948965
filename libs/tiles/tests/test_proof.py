"""The proof: online == offline == recount, whatever happens to the workers and to the store.

A stateful test. Producers write flights to two partitions: out of order, late, told twice. Two workers of tiles and two of the
lake believe that they own every partition; each takes batches of any size, dies between any two steps and begins again where
its group committed. The store loses everything, or goes back to a copy from before. After every step the tiles say what a
recount of the applied records says; whenever all is applied, the tiles, the lake's join and the recount say the same.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis.stateful import initialize, run_state_machine_as_test

from millstream_tiles import ValkeyTileStore
from millstream_tiles.reader import WindowReader

from .proof_mill import LONG, SHORT, VIEWS, Mill

_numbers = itertools.count()


def test_online_is_offline_is_a_recount_through_everything_that_goes_wrong() -> None:
    run_state_machine_as_test(Mill, settings=SHORT)


@pytest.mark.prove
@pytest.mark.timeout(3_600)
def test_the_same_at_length() -> None:
    run_state_machine_as_test(Mill, settings=LONG)


class OnValkey(Mill):
    """The same with a real Valkey, which can lose everything (its copies are a matter of its own files)."""

    url = ""

    @initialize()
    def open(self) -> None:
        namespace = f"proof-{next(_numbers)}"
        self.loop = asyncio.new_event_loop()
        self.store = ValkeyTileStore(self.url, namespace, shards=2)
        self.reader = WindowReader(self.url, namespace, VIEWS, shards=2)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def take_a_copy(self) -> None:
        pass

    def restore(self, state: Any) -> None:
        with redis.Redis.from_url(self.url) as client:
            for key in client.scan_iter(f"{{{self.reader._keys.namespace}:*", count=1000):
                client.delete(key)

    def teardown(self) -> None:
        if self.store is not None:
            self.reader.close()
            self.loop.run_until_complete(self.store.close())
            self.loop.close()
        super().teardown()


@pytest.mark.connected
def test_online_is_offline_is_a_recount_on_a_real_valkey(valkey_url: str) -> None:
    run_state_machine_as_test(
        type("There", (OnValkey,), {"url": valkey_url}), settings=settings(SHORT, max_examples=10)
    )


@pytest.mark.prove
@pytest.mark.connected
@pytest.mark.timeout(3_600)
def test_the_same_on_valkey_at_length(valkey_url: str) -> None:
    run_state_machine_as_test(
        type("There", (OnValkey,), {"url": valkey_url}), settings=settings(LONG, max_examples=300)
    )
