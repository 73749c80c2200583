"""Looking for secrets in bytes of any kind: not for their encodings, but by decoding whatever can be decoded.

A hit is any `WINDOW` characters in a row of a secret, so a part of one is found like the whole, and
encodings inside encodings are followed to a depth of three (a session is JSON in zlib in base64).
"""

import base64
import binascii
import hashlib
import html
import re
import zlib
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

WINDOW = 12  # so the last four characters, which pages show, are none
DEPTH = 3
LARGEST = 4 * 1024 * 1024  # of what one compressed stream may unfold to

_WORD = re.compile(rb"[A-Za-z0-9_\-]{12,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-]{16,}")
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}[ :]?){12,}")
_ESCAPED = re.compile(rb"\\+(?:u00|x)([0-9A-Fa-f]{2})|\\+([0-7]{3})")
_QUOTED = re.compile(rb"=([0-9A-F]{2})")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_STREAM = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")


class Searcher:
    """Knows what was planted, by a name for each secret; says which of them is in what it is shown."""

    def __init__(self, planted: dict[str, str]) -> None:
        self._windows: dict[bytes, str] = {}
        self._exact: dict[bytes, str] = {}
        for name, secret in planted.items():
            raw = secret.encode()
            pieces = {name: secret}
            for kind in ("md5", "sha1", "sha256"):
                digest = hashlib.new(kind, raw)
                pieces[f"{kind} of {name}"] = digest.hexdigest()
                self._exact[digest.digest()] = f"{kind} of {name}"
            for label, text in pieces.items():
                for word in _WORD.findall(text.encode()):
                    for start in range(len(word) - WINDOW + 1):
                        self._windows[word[start : start + WINDOW].lower()] = label
            # A raw deflate stream carries no mark to begin at.
            for level in (1, 6, 9):
                self._exact[zlib.compress(raw, level)[2:-6]] = f"{name}, deflated"

    def leaks(self, data: bytes) -> set[str]:
        """The names of the secrets that `data` holds, in clear or in any disguise."""
        found: set[str] = set()
        seen: set[bytes] = set()
        self._look(data, DEPTH, found, seen)
        found |= {name for needle, name in self._exact.items() if needle in data}
        return found

    def _look(self, data: bytes, depth: int, found: set[str], seen: set[bytes]) -> None:
        for word in set(_WORD.findall(data)):
            if word in seen:
                continue
            seen.add(word)
            lowered = word.lower()
            for start in range(len(lowered) - WINDOW + 1):
                if name := self._windows.get(lowered[start : start + WINDOW]):
                    found.add(name)
        if depth:
            for decoded in _decoded(data, seen):
                self._look(decoded, depth - 1, found, seen)


def _decoded(data: bytes, seen: set[bytes]) -> Iterator[bytes]:
    if b"\0" in data:
        yield data.replace(b"\0", b"")  # UTF-16 and UTF-32
    if b"%" in data:
        yield unquote_to_bytes(data)
    if b"\\" in data:
        yield _ESCAPED.sub(_byte, data)
    if b"&" in data:
        yield html.unescape(data.decode("latin-1")).encode("utf-8")
    if b"=" in data:
        yield _QUOTED.sub(_byte, re.sub(rb"=\r?\n", b"", data))
    yield from _unfolded(data)
    # All short pieces together: what comes out is looked through once, not thousands of times.
    hexed = [re.sub(rb"[ :]", b"", word) for word in set(_HEX.findall(data))]
    if hexed := [word for word in hexed if _is_new(b"hex " + word, seen)]:
        yield b"\n".join(binascii.unhexlify(word[at : at + (len(word) - at) // 2 * 2]) for word in hexed for at in (0, 1))
    coded = [word for word in set(_BASE64.findall(data)) if _is_new(b"base64 " + word, seen)]
    for at in range(4):
        pieces = (word.translate(_URL_SAFE)[at:] for word in coded)
        if decoded := [base64.b64decode(piece[: len(piece) // 4 * 4]) for piece in pieces]:
            yield b"\n".join(decoded)


def _is_new(word: bytes, seen: set[bytes]) -> bool:
    if word in seen:
        return False
    seen.add(word)
    return True


def _byte(match: re.Match[bytes]) -> bytes:
    if match.lastindex == 2:
        return bytes([int(match[2], 8) & 255])
    return bytes.fromhex(match[1].decode())


def _unfolded(data: bytes) -> Iterator[bytes]:
    for match in _STREAM.finditer(data):
        stream = zlib.decompressobj(wbits=47)  # zlib or gzip, by its head
        try:
            unfolded = stream.decompress(data[match.start() : match.start() + LARGEST], LARGEST)
        except zlib.error:
            continue
        if len(unfolded) >= WINDOW:
            yield unfolded
