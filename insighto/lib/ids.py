"""Identifiers: random ones, and ones derived so that a repeat names the same thing."""

import secrets
import time
import uuid

_NAMESPACE = uuid.UUID("6f1c52f0-6b3a-4c39-9b0e-6d0b7f1d6a55")


def new() -> uuid.UUID:
    """A UUID version 7 (RFC 9562): its first 48 bits are milliseconds, so new rows sit together in an index."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def derived(*parts: str | uuid.UUID) -> uuid.UUID:
    """The same parts always give the same id; parts are length-prefixed, so ("a", "bc") is not ("ab", "c")."""
    return uuid.uuid5(_NAMESPACE, "".join(f"{len(str(part))}:{part}" for part in parts))
