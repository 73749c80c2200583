"""A multipart upload on its way through: from the client to a file on disk, judged there, and on to the provider.

Fields may follow the file, and on credits every field is judged before anything is sent; so the upload is
complete before it goes on. Memory stays flat: pieces are written as they come and the parts are found where they
lie. The file has no name and is gone when it is closed.
"""

import asyncio
import mmap
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO, Final

from gateway.errors import Refused
from gateway.incoming import Call
from gateway.upstreams.base import Streamed

MAX_BYTES: Final = 26 * 1024 * 1024  # 25 MB is the providers' own bound; the rest is for the form around it
MAX_PARTS: Final = 60
MAX_HEAD_BYTES: Final = 4 * 1024
MAX_FIELD_BYTES: Final = 64 * 1024
PIECE_BYTES: Final = 256 * 1024
_TYPE: Final = re.compile(
    r'multipart/form-data\s*;\s*boundary=("?)([A-Za-z0-9\'()+_,./:=?\-]{1,70})\1\s*', re.IGNORECASE
)
_NAME: Final = re.compile(
    rb'^form-data\s*;\s*name="([A-Za-z_]{1,60}(?:\[\])?)"\s*(?:;\s*filename="([^"\r\n]{0,500})")?\s*$'
)
_MEDIA: Final = re.compile(rb"[A-Za-z0-9!#$&^_.+\-]{1,60}/[A-Za-z0-9!#$&^_.+\-]{1,60}(?:\s*;[ -~]{0,120})?")


@dataclass(frozen=True, slots=True)
class Part:
    """One field: its name, and where its value lies. A file has a name of its own."""

    name: str
    start: int
    end: int
    is_file: bool
    filename: bytes = b""
    media: bytes = b""

    @property
    def size(self) -> int:
        return self.end - self.start


class Upload:
    """The body as it came, and the parts in it. Close it."""

    def __init__(self, file: IO[bytes], size: int, content_type: str) -> None:
        self.size = size
        self.content_type = content_type
        self.parts: list[Part] = []
        self._file = file

    def close(self) -> None:
        self._file.close()

    def fields(self) -> dict[str, str]:
        """The values that are text. A field sent twice is refused unless its name says that it is a list."""
        found: dict[str, str] = {}
        for part in self.parts:
            if part.is_file:
                continue
            if part.size > MAX_FIELD_BYTES:
                raise Refused("body_too_large")
            if part.name in found and not part.name.endswith("[]"):
                raise Refused("invalid_value", f"'{part.name}' is there twice.", param=part.name)
            try:
                found[part.name] = self.read(part.start, part.size).decode()
            except UnicodeDecodeError:
                raise Refused("invalid_value", f"'{part.name}' must be UTF-8.", param=part.name) from None
        return found

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, start)

    def untouched(self) -> Streamed:
        """The client's bytes."""
        return Streamed(self.size, lambda: self._pieces([(0, self.size)]))

    def anew(self) -> tuple[Streamed, str]:
        """The parts that were judged and nothing else, written anew, and the content type with the new boundary."""
        boundary = b"insighto-" + secrets.token_hex(16).encode()
        chunks: list[bytes | tuple[int, int]] = []
        for part in self.parts:
            head = b'--%s\r\nContent-Disposition: form-data; name="%s"' % (boundary, part.name.encode())
            if part.is_file:
                head += b'; filename="%s"' % (re.sub(rb"[^A-Za-z0-9._\-]", b"_", part.filename) or b"file")
                head += b"\r\nContent-Type: " + (part.media or b"application/octet-stream")
            chunks += [head + b"\r\n\r\n", (part.start, part.end), b"\r\n"]
        chunks.append(b"--%s--\r\n" % boundary)
        size = sum(len(chunk) if isinstance(chunk, bytes) else chunk[1] - chunk[0] for chunk in chunks)
        return Streamed(size, lambda: self._pieces(chunks)), f"multipart/form-data; boundary={boundary.decode()}"

    async def _pieces(self, chunks: "list[bytes | tuple[int, int]] | list[tuple[int, int]]") -> AsyncIterator[bytes]:
        for chunk in chunks:
            if isinstance(chunk, bytes):
                yield chunk
                continue
            start, end = chunk
            while start < end:
                piece = await asyncio.to_thread(self.read, start, min(PIECE_BYTES, end - start))
                if not piece:
                    return
                start += len(piece)
                yield piece


async def receive(call: Call) -> Upload:
    """The client's form. Raises `Refused` when it is none, is too large, or can be read in two ways."""
    content_type = call.header(b"content-type")
    found = _TYPE.fullmatch(content_type)
    if found is None:
        raise Refused("unsupported_media_type")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the Upload
    try:
        size = 0
        async for piece in call.body_pieces(MAX_BYTES):
            size += len(piece)
            await asyncio.to_thread(file.write, piece)
        file.flush()
        upload = Upload(file, size, content_type)
        upload.parts = await asyncio.to_thread(_parts, file, size, found[2].encode())
    except BaseException:
        file.close()
        raise
    return upload


def _parts(file: IO[bytes], size: int, boundary: bytes) -> list[Part]:
    """Read strictly: no preamble, no nesting, no transfer encodings, nothing another reader might see otherwise."""
    if not size:
        raise _unreadable()
    limit = b"\r\n--" + boundary
    parts: list[Part] = []
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as body:
        if body[: len(limit)] != limit[2:] + b"\r\n":
            raise _unreadable()
        place = len(limit) - 2
        while body[place : place + 2] == b"\r\n":
            place += 2
            head_end = body.find(b"\r\n\r\n", place, place + MAX_HEAD_BYTES)
            end = body.find(limit, head_end + 4 - 2) if head_end >= 0 else -1
            if end < 0 or len(parts) >= MAX_PARTS:
                raise _unreadable()
            start = head_end + 4
            parts.append(_part(body[place:head_end], start, max(start, end)))
            place = end + len(limit)
        if body[place : place + 2] != b"--" or body[place + 2 :].strip():
            raise _unreadable()
    return parts


def _part(head: bytes, start: int, end: int) -> Part:
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.strip().lower()
        if name not in (b"content-disposition", b"content-type", b"content-length") or name in headers:
            raise _unreadable()
        headers[name] = value.strip()
    found = _NAME.match(headers.get(b"content-disposition", b""))
    media = headers.get(b"content-type", b"")
    if found is None or (media and not _MEDIA.fullmatch(media)):
        raise _unreadable()
    filename = found[2]
    return Part(found[1].decode(), start, end, filename is not None, filename or b"", media)


def _unreadable() -> Refused:
    return Refused("invalid_form")
