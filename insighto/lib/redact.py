"""Takes secrets out of text that has to be kept. The last net, not the first: secrets should not get this far.

The patterns follow what providers' keys and their masked echoes look like; a harmless identifier caught
with them is the price.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

MARK = "[redacted]"
_DEPTH = 8

_PATTERNS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\[CALL STACK BEGIN\][\s\S]*?(?:\[CALL STACK END\]|\Z)",
        r"(?:xi-api-key|ocp-apim-subscription-key|api[-_]?key|x-api-key|set-cookie|cookie)[\"']?\s*[:=]\s*[^\s,}]+",
        r"(?:Bearer|Basic)[ +]\S+",
        r"\b[a-z][a-z0-9+.\-]*://[^\s/@]*:[^\s/@]+@",  # a password inside an address
        r"sk-[A-Za-z0-9_*.\-]{8,}",
        r"sk_[A-Za-z0-9]{16,}",
        r"in-[A-Za-z0-9]{30,}",
        r"[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{26}",
        r"\b[0-9a-f]{32}\b",
        r"\S{1,8}\*{3,}\S{0,5}",
        r"\b(?:org|proj|user)[-_][A-Za-z0-9]{8,}",
    )
)
_SECRET_NAMES = re.compile(
    r"authorization|api[-_]?key$|subscription[-_]key|password|passwd|secret(?!_version)|token$|cookie|pepper|ciphertext",
    re.IGNORECASE,
)


def scrub(text: str, *, secrets: tuple[str, ...] = (), limit: int | None = None) -> str:
    """`text` without `secrets` in any spelling of theirs, without anything shaped like one, cut at `limit`."""
    for secret in secrets:
        bare = secret.strip()
        if not bare:
            continue
        spellings = {secret, bare, repr(secret)[1:-1], quote(bare, safe=""), quote(bare)}
        for spelling in sorted(spellings, key=len, reverse=True):
            text = text.replace(spelling, MARK)
        if len(bare) > 12:
            text = re.sub(re.escape(bare[:8]) + r"[*.…]{2,}" + re.escape(bare[-4:]), MARK, text)
    for pattern in _PATTERNS:
        text = pattern.sub(MARK, text)
    return text if limit is None else text[:limit]


def scrub_value(value: Any, *, name: str = "", depth: int = 0) -> Any:
    """The same for whatever a log call was given: strings inside mappings and sequences, and values by their name."""
    if name and _SECRET_NAMES.search(name) and value not in (None, "", True, False):
        return MARK
    if isinstance(value, str):
        return scrub(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= _DEPTH:
        return MARK
    if isinstance(value, Mapping):
        return {str(key): scrub_value(item, name=str(key), depth=depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [scrub_value(item, depth=depth + 1) for item in value]
    return scrub(str(value))
