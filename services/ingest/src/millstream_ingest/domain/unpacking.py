"""Unpacks gzip and zstd bodies piece by piece, within bounds: a kilobyte can hold a gigabyte of zeros."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

from backports import zstd

from millstream.errors import Refusal

PIECE = 64 * 1024
"""Bytes that are unpacked at a time, whatever the packed ones say."""
MOST_RATIO = 200
"""Unpacked bytes of a packed one. Event logs reach 10 to 30, lines that hardly differ 100; zeros 1,000 and more."""
FREE = 1024 * 1024
"""Unpacked bytes that any body may have: the ratio of a small one says nothing."""
WINDOW_LOG = 23
"""8 MiB, what RFC 8878 asks a reader to bear; a frame may ask for 2 GiB of history."""


class Unpacker(Protocol):
    def feed(self, packed: bytes) -> Iterator[bytes]:
        """The bytes that `packed` adds, in pieces. Raises Refusal(`bad_encoding`, `compression_ratio`)."""
        ...

    def end(self) -> None:
        """The body is over. Raises Refusal(`bad_encoding`) when it stops in the middle."""
        ...


class Plain:
    """As it came."""

    def feed(self, packed: bytes) -> Iterator[bytes]:
        yield packed

    def end(self) -> None: ...


class Packed:
    """One gzip member or zstd frame; several after one another count as one, as both formats have it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._gzip = zlib.decompressobj(wbits=31)
        self._zstd = _zstd()
        self._begun = False
        self._taken = self._given = 0

    def feed(self, packed: bytes) -> Iterator[bytes]:
        self._taken += len(packed)
        try:
            for piece in self._gunzip(packed) if self._name == "gzip" else self._unzstd(packed):
                self._given += len(piece)
                if self._given > FREE and self._given > MOST_RATIO * self._taken:
                    raise Refusal(
                        "compression_ratio", f"the body unpacks to more than {MOST_RATIO} times its size; send it plain"
                    )
                yield piece
        except (zlib.error, zstd.ZstdError) as error:
            raise self._broken(str(error)) from error

    def end(self) -> None:
        if self._begun or not self._taken:
            raise self._broken("it ends too early")

    def _broken(self, why: str) -> Refusal:
        return Refusal(
            "bad_encoding",
            f"the body is no {self._name}, as content-encoding says: {why}; or leave that header out",
        )

    def _gunzip(self, packed: bytes) -> Iterator[bytes]:
        while packed:
            self._begun = True
            if piece := self._gzip.decompress(packed, PIECE):
                yield piece
            packed = self._gzip.unconsumed_tail
            if self._gzip.eof:
                packed, self._begun = self._gzip.unused_data, False
                self._gzip = zlib.decompressobj(wbits=31)

    def _unzstd(self, packed: bytes) -> Iterator[bytes]:
        while packed or not self._zstd.needs_input:
            self._begun = True
            piece, packed = self._zstd.decompress(packed, PIECE), b""
            if piece:
                yield piece
            if self._zstd.eof:
                packed, self._begun = self._zstd.unused_data, False
                self._zstd = _zstd()


def _zstd() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})
