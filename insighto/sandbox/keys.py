"""The keys the sandbox knows: right-shaped, deterministic, and readable only with this module.

A key carries its outcome, its tag and, for Azure, its region, so any number of distinct keys exist without a
table of them: `valid_key("openai", "acme")` is always the same text and always accepted. Nothing here is secret.
"""

import hashlib
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

OPENAI = "openai"
AZURE = "azure_speech"
ELEVENLABS = "elevenlabs"
PROVIDERS = (OPENAI, AZURE, ELEVENLABS)
DEFAULT_REGION = "westeurope"

# fmt: off
REGIONS = [
    "southafricanorth", "eastasia", "southeastasia", "australiaeast", "centralindia", "japaneast", "japanwest",
    "koreacentral", "canadacentral", "canadaeast", "northeurope", "westeurope", "francecentral",
    "germanywestcentral", "italynorth", "norwayeast", "swedencentral", "switzerlandnorth", "switzerlandwest",
    "uksouth", "ukwest", "uaenorth", "brazilsouth", "qatarcentral", "centralus", "eastus", "eastus2",
    "northcentralus", "southcentralus", "westcentralus", "westus", "westus2", "westus3",
]
# fmt: on


class Outcome(StrEnum):
    """What the provider does when it meets a key. The order is part of every key: only append."""

    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    WRONG_REGION = "wrong_region"
    RESTRICTED = "restricted"
    RESTRICTED_PARTLY = "restricted_partly"
    RESTRICTED_IN_USE = "restricted_in_use"
    FIREWALL = "firewall"
    WRONG_PROJECT = "wrong_project"
    PLAN_TOO_LOW = "plan_too_low"
    UNUSUAL_ACTIVITY = "unusual_activity"
    FREE_DISABLED = "free_disabled"
    NO_QUOTA = "no_quota"
    NO_QUOTA_IN_USE = "no_quota_in_use"
    RATE_LIMITED = "rate_limited"
    SLOW_DOWN = "slow_down"
    COUNTRY_BLOCKED = "country_blocked"
    UNKNOWN_401 = "unknown_401"
    DOWN = "down"
    SLOW = "slow"
    SLOW_300MS = "slow_300ms"
    HTML = "html"
    GARBAGE = "garbage"
    EMPTY = "empty"
    DROPS = "drops"
    REDIRECTS = "redirects"
    ECHOES = "echoes"
    BREAKS_MID_STREAM = "breaks_mid_stream"
    SLOW_STREAM = "slow_stream"
    DIES_BEFORE_FIRST_BYTE = "dies_before_first_byte"
    NO_USAGE = "no_usage"
    HOSTILE_USAGE = "hostile_usage"
    DOWN_IN_USE = "down_in_use"
    ERROR_MID_STREAM = "error_mid_stream"


_EVERYWHERE: dict[Outcome, str] = {
    Outcome.VALID: "accepted; every call works",
    Outcome.INVALID: "refused as a wrong key",
    Outcome.RATE_LIMITED: "429 with a time to wait",
    Outcome.DOWN: "500 to everything",
    Outcome.DOWN_IN_USE: "passes the check, then 503 in use",
    Outcome.SLOW: "hangs 30 seconds, then works",
    Outcome.SLOW_300MS: "answers after exactly 300 ms",
    Outcome.HTML: "a guest network's page, with status 200",
    Outcome.GARBAGE: "status 200 with broken JSON",
    Outcome.EMPTY: "status 200 with an empty object",
    Outcome.DROPS: "closes the connection without a word",
    Outcome.REDIRECTS: "307 to another host, which records what arrives",
    Outcome.ECHOES: "an unknown 401 that repeats the key: plain, percent-encoded, in headers",
    Outcome.UNKNOWN_401: "a 401 that nobody has documented",
    Outcome.BREAKS_MID_STREAM: "stops half-way through an answer",
    Outcome.SLOW_STREAM: "a pause before every piece of an answer",
    Outcome.DIES_BEFORE_FIRST_BYTE: "status 200 in use, then the line goes dead",
}

OUTCOMES: dict[str, dict[Outcome, str]] = {
    OPENAI: {
        **_EVERYWHERE,
        Outcome.DEACTIVATED: "401, the account was deactivated",
        Outcome.WRONG_REGION: "401, belongs to eu.api.openai.com",
        Outcome.RESTRICTED: "may not list models (scope api.model.read), but may chat and speak",
        Outcome.RESTRICTED_IN_USE: "lists models, but may not do inference",
        Outcome.FIREWALL: "401, this address is not on the project's list",
        Outcome.WRONG_PROJECT: "401, belongs to another project",
        Outcome.NO_QUOTA: "lists models; insufficient_quota in use",
        Outcome.SLOW_DOWN: "503 slow_down",
        Outcome.COUNTRY_BLOCKED: "403, our server's country is not served",
        Outcome.ERROR_MID_STREAM: "an error message half-way through a stream",
        Outcome.NO_USAGE: "answers without reporting usage",
        Outcome.HOSTILE_USAGE: "reports absurd usage numbers",
    },
    AZURE: {
        **_EVERYWHERE,
        Outcome.WRONG_REGION: "a genuine key of northeurope: 401 anywhere else",
        Outcome.RESTRICTED: "403, key authentication is switched off for the resource",
        Outcome.RESTRICTED_IN_USE: "lists voices; 403 when it should speak",
        Outcome.FIREWALL: "403, behind a virtual network or firewall",
        Outcome.NO_QUOTA: "403, out of call volume quota",
        Outcome.NO_QUOTA_IN_USE: "lists voices; 403 out of quota when it should speak",
    },
    ELEVENLABS: {
        **_EVERYWHERE,
        Outcome.RESTRICTED: "may read nothing at all, but may speak",
        Outcome.RESTRICTED_PARTLY: "may not read the subscription; models, voices and speech work",
        Outcome.RESTRICTED_IN_USE: "may read everything, but not speak",
        Outcome.PLAN_TOO_LOW: "402 paid_plan_required in use",
        Outcome.UNUSUAL_ACTIVITY: "401 detected_unusual_activity",
        Outcome.FREE_DISABLED: "subscription status free_disabled",
        Outcome.NO_QUOTA: "subscription shows all characters used; 401 quota_exceeded in use",
        Outcome.NO_QUOTA_IN_USE: "subscription looks fine; 401 quota_exceeded in use (limit on the key)",
        Outcome.SLOW_DOWN: "429 system_busy",
    },
}

_ORDER = list(Outcome)
_TAG = re.compile(r"[a-z0-9-]{0,24}")
_TAG_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-"
_BASE62 = string.digits + string.ascii_letters
_PAYLOAD_BYTES = 18  # outcome, region, 16 bytes of tag
_OPENAI_FORM = re.compile(r"sk-proj-([0-9A-Za-z]{52})T3BlbkFJ([0-9A-Za-z]{20})")
_AZURE_FORM = re.compile(r"([0-9A-Za-z]{52})JQQJ99([0-9A-Za-z]{18})ACOG([0-9A-Za-z]{4})")
_ELEVENLABS_FORM = re.compile(r"sk_([0-9a-f]{48})")


@dataclass(frozen=True, slots=True)
class SandboxKey:
    """One key and what it stands for. `region` is empty except for Azure."""

    provider: str
    outcome: Outcome
    tag: str
    region: str
    text: str

    @property
    def name(self) -> str:
        """How the journal and the page call it; never the key itself."""
        if self.outcome is Outcome.VALID:
            return self.tag
        return f"{self.outcome}:{self.tag}" if self.tag else str(self.outcome)


@lru_cache(maxsize=4096)
def key(provider: str, outcome: Outcome | str, tag: str = "", *, region: str = "") -> str:
    """The one key of this provider, outcome, tag (a-z, 0-9 and hyphen, 24 at most) and Azure region."""
    outcome = Outcome(outcome)
    if outcome not in OUTCOMES[provider]:
        message = f"{provider} has no key with the outcome {outcome}"
        raise ValueError(message)
    if not _TAG.fullmatch(tag):
        message = f"{tag!r} is not a tag"
        raise ValueError(message)
    if not region:
        region = "northeurope" if outcome is Outcome.WRONG_REGION else DEFAULT_REGION
    payload = bytes([_ORDER.index(outcome), REGIONS.index(region)]) + _pack(tag)
    check = hashlib.sha256(b"insighto sandbox key|" + provider.encode() + b"|" + payload).digest()
    if provider == OPENAI:
        return f"sk-proj-{_base62(check[:20] + _mask(payload, check[:20]), 52)}T3BlbkFJ{_base62(check[18:], 20)}"
    if provider == AZURE:
        body = _base62(check[:20] + _mask(payload, check[:20]), 52)
        return f"{body}JQQJ99{_base62(check[19:], 18)}ACOG{_base62(check[29:], 4)[-4:]}"
    return "sk_" + (check[:6] + _mask(payload, check[:6])).hex()


def valid_key(provider: str, tag: str, *, region: str = "") -> str:
    """A key that works. Another tag is another account of the provider."""
    return key(provider, Outcome.VALID, tag, region=region)


@lru_cache(maxsize=4096)
def read(provider: str, text: str) -> SandboxKey | None:
    """What the sandbox's `provider` makes of this text; None when it is not one of that provider's keys."""
    blob = _blob(provider, text)
    if blob is None or len(blob) < _PAYLOAD_BYTES:
        return None
    check, payload = blob[:-_PAYLOAD_BYTES], blob[-_PAYLOAD_BYTES:]
    payload = _mask(payload, check)
    if payload[0] >= len(_ORDER) or payload[1] >= len(REGIONS):
        return None
    outcome, region, tag = _ORDER[payload[0]], REGIONS[payload[1]], _unpack(payload[2:])
    if tag is None or outcome not in OUTCOMES[provider] or key(provider, outcome, tag, region=region) != text:
        return None
    return SandboxKey(provider, outcome, tag, region if provider == AZURE else "", text)


def name(provider: str, text: str) -> str:
    """The name under which the journal records this text: a known key's name, else a short digest."""
    known = read(provider, text)
    if known:
        return known.name
    return "unknown:" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12] if text else "none"


def listed(provider: str) -> Iterator[tuple[SandboxKey, str]]:
    """The keys the page shows, with what each does; any other tag works as well."""
    for outcome, meaning in OUTCOMES[provider].items():
        tags = ("platform", "one", "two", "three") if outcome is Outcome.VALID else ("",)
        for tag in tags:
            known = read(provider, key(provider, outcome, tag))
            assert known is not None
            yield known, meaning


def _pack(tag: str) -> bytes:
    number = 0
    for character in tag:
        number = number * 38 + 1 + _TAG_ALPHABET.index(character)
    return number.to_bytes(16, "big")


def _unpack(packed: bytes) -> str | None:
    number, tag = int.from_bytes(packed, "big"), ""
    while number:
        number, digit = divmod(number, 38)
        if digit == 0:
            return None
        tag = _TAG_ALPHABET[digit - 1] + tag
    return tag if len(tag) <= 24 else None


def _mask(payload: bytes, check: bytes) -> bytes:
    stream = hashlib.sha256(b"mask|" + check).digest()
    return bytes(a ^ b for a, b in zip(payload, stream, strict=False))


def _base62(data: bytes, width: int) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 62)
        text = _BASE62[digit] + text
    return text.rjust(width, "0")


def _blob(provider: str, text: str) -> bytes | None:
    if provider == ELEVENLABS:
        found = _ELEVENLABS_FORM.fullmatch(text)
        return bytes.fromhex(found[1]) if found else None
    found = (_OPENAI_FORM if provider == OPENAI else _AZURE_FORM).fullmatch(text)
    if not found:
        return None
    number = 0
    for character in found[1]:
        number = number * 62 + _BASE62.index(character)
    size = 20 + _PAYLOAD_BYTES
    return number.to_bytes(size, "big") if number < 1 << (8 * size) else None
