"""Looking for secrets in bytes of any kind: not for their encodings, but by decoding whatever can be decoded.

A hit is any `WINDOW` characters in a row of a secret, so a part of one is found like the whole, and
encodings inside encodings are followed to a depth of four (a session is JSON in zlib in base64).
"""

import base64
import binascii
import hashlib
import html
import re
import zlib
from collections.abc import Callable, Iterator
from urllib.parse import unquote_to_bytes

WINDOW = 12  # so the last four characters, which pages show, are none
DEPTH = 4
LARGEST = 4 * 1024 * 1024  # of what one compressed stream may unfold to

_WORD = re.compile(rb"[A-Za-z0-9_\-]{12,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-]{16,}")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_STREAM = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")
_ESCAPED = re.compile(rb"\\+(?:u00|x)([0-9A-Fa-f]{2})|\\+([0-7]{3})")
_SOFT_BREAK = re.compile(rb"=\r?\n")
# Runs in which every character is written in another way; where only some are, enough of the rest is in clear.
_RUNS: list[tuple[re.Pattern[bytes], Callable[[bytes], bytes]]] = [
    (re.compile(rb"(?:[!-~]\0){12,}|(?:\0[!-~]){12,}"), lambda run: run.replace(b"\0", b"")),
    (re.compile(rb"(?:[A-Za-z0-9_.~\-]*%[0-9A-Fa-f]{2,6}){8}[A-Za-z0-9_.~%\-]*"), unquote_to_bytes),
    (re.compile(rb"(?:\\+(?:u00|x)[0-9A-Fa-f]{2}|\\+[0-7]{3}){8,}"), lambda run: _ESCAPED.sub(_byte, run)),
    (re.compile(rb"(?:&#x?[0-9A-Fa-f]{2,4};){8,}"), lambda run: html.unescape(run.decode()).encode()),
    (re.compile(rb"(?:=[0-9A-F]{2}){8,}"), lambda run: binascii.unhexlify(run.replace(b"=", b""))),
    (re.compile(rb"(?:[0-9A-Fa-f]{2}){12,}[0-9A-Fa-f]?"), lambda run: _from_hex(run, 0)),
    (re.compile(rb"(?:[0-9A-Fa-f]{2}){12,}[0-9A-Fa-f]?"), lambda run: _from_hex(run, 1)),
    *((_BASE64, lambda run, at=at: _from_base64(run[at:])) for at in range(4)),
]
# What a decoded piece must have to be worth another look; random bytes have none of it.
_PROMISING = re.compile(_WORD.pattern + b"|" + _STREAM.pattern + b"|" + b"|".join(run.pattern for run, _ in _RUNS[:5]))


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
        found = {name for needle, name in self._exact.items() if needle in data}
        self._look(data, DEPTH, found, set())
        return found

    def _look(self, data: bytes, depth: int, found: set[str], seen: set[bytes]) -> None:
        for word in _new(_WORD.findall(data), seen, b"word"):
            lowered = word.lower()
            for start in range(len(lowered) - WINDOW + 1):
                if name := self._windows.get(lowered[start : start + WINDOW]):
                    found.add(name)
        if depth:
            for decoded in _decoded(data, seen):
                self._look(decoded, depth - 1, found, seen)


def _decoded(data: bytes, seen: set[bytes]) -> Iterator[bytes]:
    if _SOFT_BREAK.search(data):
        yield _SOFT_BREAK.sub(b"", data)
    yield from _unfolded(data)
    for number, (runs, decode) in enumerate(_RUNS):
        # Looked through together, because most pieces are short, and each of them once.
        pieces = [decode(run) for run in _new(runs.findall(data), seen, b"%d" % number)]
        if pieces := [piece for piece in pieces if _PROMISING.search(piece)]:
            yield b"\n".join(pieces)


def _new(words: list[bytes], seen: set[bytes], kind: bytes) -> list[bytes]:
    fresh = [word for word in set(words) if kind + word not in seen]
    seen.update(kind + word for word in fresh)
    return fresh


def _byte(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[2], 8) & 255]) if match[1] is None else bytes.fromhex(match[1].decode())


def _from_hex(text: bytes, at: int) -> bytes:
    return binascii.unhexlify(text[at : at + (len(text) - at) // 2 * 2])


def _from_base64(text: bytes) -> bytes:
    text = (text[:-1] if len(text) % 4 == 1 else text).translate(_URL_SAFE)
    return base64.b64decode(text + b"=" * (-len(text) % 4))


def _unfolded(data: bytes) -> Iterator[bytes]:
    for match in _STREAM.finditer(data):
        piece = data[match.start() : match.start() + LARGEST]
        unfolded = _unfold([piece]) or _unfold([piece[at : at + 1] for at in range(min(len(piece), 65_536))])
        if len(unfolded) >= WINDOW:
            yield unfolded


def _unfold(pieces: list[bytes]) -> bytes:
    """As much as there is before something else begins; an error costs the piece it is met in."""
    stream, unfolded = zlib.decompressobj(wbits=47), b""  # zlib or gzip, by its head
    for piece in pieces:
        try:
            unfolded += stream.decompress(piece, LARGEST)
        except zlib.error:
            break
        if stream.eof or len(unfolded) > LARGEST:
            break
    return unfolded
