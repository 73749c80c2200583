"""The voices a speech provider offers to the credential that would serve an account now.

Free calls only. What comes back is ids and names, bounded, cached for ten minutes per credential version.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import msgspec
from django.conf import settings
from django.core.cache import cache

from accounts.models import Account
from billing import routing
from billing.selectors import RouteFacts, standings
from insighto.lib import http
from insighto.lib.errors import DomainError
from provider_keys.crypto import SealedCredential
from provider_keys.models import Provider
from provider_keys.services import connections

CACHE_S = 600
MAX_BYTES = 4_000_000
MAX_VOICES = 1_000
AZURE_NAME = re.compile(r"^[A-Za-z]{2,3}-[A-Za-z]{2,4}(-[A-Za-z]+)?-[\w:\-]+Neural$")
ELEVENLABS_ID = re.compile(r"^[A-Za-z0-9]{20}$")


@dataclass(frozen=True, slots=True)
class Voice:
    id: str
    name: str
    locale: str = ""


@dataclass(frozen=True, slots=True)
class VoiceChoices:
    """The voices of one provider, or why there are none to choose from."""

    provider: str
    label: str
    voices: tuple[Voice, ...]
    source: str  # whose credential saw them
    problem: str = ""


def available(account: Account) -> list[VoiceChoices]:
    """Voices of both speech providers, asked for together; a provider that does not answer has a `problem`."""
    providers = [Provider.AZURE_SPEECH, Provider.ELEVENLABS]
    facts = standings([(account.pk, provider.value) for provider in providers])
    return asyncio.run(_gather(list(zip(providers, facts, strict=True))))


async def _gather(asks: list[tuple[Provider, RouteFacts]]) -> list[VoiceChoices]:
    return list(await asyncio.gather(*(_choices(provider, fact) for provider, fact in asks)))


async def _choices(provider: Provider, fact: RouteFacts) -> VoiceChoices:
    label = str(provider.label)
    decision = routing.decide(fact.standing)
    if decision.is_refused:
        return VoiceChoices(provider, label, (), "", routing.REASONS[decision.reason])
    sealed = fact.own if decision.connection_id else fact.platform
    source = decision.connection_name or "the platform"
    if sealed is None:
        return VoiceChoices(provider, label, (), source, routing.REASONS["platform_unavailable"])
    key = f"voices:{sealed.credential_id}:{sealed.secret_version}"
    voices = await asyncio.to_thread(cache.get, key)
    if voices is None:
        try:
            voices = await _ask(provider, sealed)
        except (http.RequestFailed, DomainError, msgspec.DecodeError, TypeError, KeyError):
            return VoiceChoices(
                provider, label, (), source, "the provider did not list its voices just now. Enter a voice by its id."
            )
        await asyncio.to_thread(cache.set, key, voices, CACHE_S)
    return VoiceChoices(provider, label, tuple(Voice(*voice) for voice in voices), source)


async def _ask(provider: Provider, sealed: SealedCredential) -> list[tuple[str, str, str]]:
    secret = connections.open_credential(sealed)
    if provider == Provider.AZURE_SPEECH:
        base = settings.AZURE_SPEECH_TTS_URL.format(region=sealed.region)
        url = f"{base}/cognitiveservices/voices/list"
        headers = {"Ocp-Apim-Subscription-Key": secret.reveal()}
    else:
        base = settings.ELEVENLABS_BASE_URL
        url = f"{base}/v2/voices?page_size=100"
        headers = {"xi-api-key": secret.reveal()}
    async with http.session(base) as session:
        answer = await http.get(session, url, headers=headers, max_bytes=MAX_BYTES)
    if answer.status != 200:
        kind = "refused"
        raise http.RequestFailed(kind)
    body = msgspec.json.decode(answer.body)
    rows = body if provider == Provider.AZURE_SPEECH else body["voices"]
    read = _azure_voice if provider == Provider.AZURE_SPEECH else _elevenlabs_voice
    return [voice for row in rows[:MAX_VOICES] if isinstance(row, dict) and (voice := read(row))]


def _azure_voice(row: dict[str, Any]) -> tuple[str, str, str] | None:
    name, shown, locale = row.get("ShortName"), row.get("DisplayName"), row.get("Locale")
    if not isinstance(name, str) or not AZURE_NAME.fullmatch(name):
        return None
    return name, _text(shown) or name, _text(locale)


def _elevenlabs_voice(row: dict[str, Any]) -> tuple[str, str, str] | None:
    voice_id, name = row.get("voice_id"), row.get("name")
    if not isinstance(voice_id, str) or not ELEVENLABS_ID.fullmatch(voice_id):
        return None
    return voice_id, _text(name) or voice_id, ""


def _text(value: object) -> str:
    """Provider text that is shown: printable, short."""
    return value[:60] if isinstance(value, str) and value.isprintable() else ""
