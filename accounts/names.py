"""What a name may be: printable, trimmed, bounded. Pure."""

import unicodedata

from accounts.errors import NameRejected


def clean(name: str, *, limit: int, field: str = "name") -> str:
    """`name` in one line without surrounding space; control and format characters are refused."""
    trimmed = " ".join(name.split(" ")).strip()
    if not trimmed or len(trimmed) > limit:
        raise NameRejected(f"Please enter a name of at most {limit} characters.", field=field)
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for character in trimmed):
        raise NameRejected(field=field)
    return trimmed
