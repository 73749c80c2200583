"""Asking a provider about a key, with free calls only, and bringing back an outcome: never text, never an exception.

One HTTPS request (ElevenLabs: up to three) with an ordinary client: redirects off, inner
addresses refused, sizes bounded, ten seconds from first to last. Everything about the answer
is judged by `classify`.

Azure is asked over REST only; design §4 also named the official SDK's voices call as proof. It
adds no certainty here: it is the same GET to the same host, our product speaks Azure over that
REST host and not through the SDK, and the SDK hides body and Retry-After. It costs some:
against a silent server its call took 20.4 s (measured, 1.53.0) and a thread inside native code
cannot be ended at our ten; the address it connects to cannot be checked; its `host=` takes no
path, so it cannot follow `AZURE_SPEECH_TTS_URL` everywhere. A second voice that may hang longer
than the first one answers would be left out exactly when it disagreed.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import aiohttp
import structlog
from django.conf import settings

from insighto.lib import http
from insighto.lib.secret import Secret
from provider_keys import classify, destinations, pasted
from provider_keys.classify import Outcome, Reason
from provider_keys.models import Attempt, Provider, Verdict

logger = structlog.get_logger(__name__)

DEADLINE_S: Final = 10.0
MAX_IDS: Final = 1000

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,79}")
_ELEVENLABS_CALLS: Final = ("/v1/user/subscription", "/v1/models", "/v2/voices?page_size=100")

Capabilities = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Probed:
    """What was learnt about the key, and the ids of what it was seen to have (None: not seen)."""

    outcome: Outcome
    capabilities: Capabilities | None = None


class Panel:
    """Any number of questions under way at once; the answers are handed out as they arrive.

    The event loop runs only inside `answers`, so the caller may use the database between.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._asked: dict[asyncio.Task[Probed], UUID] = {}

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()  # cancels what still runs

    @property
    def is_waiting(self) -> bool:
        return bool(self._asked)

    def ask(self, subject: UUID, *, provider: str, region: str, secret: Secret) -> None:
        task = self._runner.get_loop().create_task(ask(provider, region=region, secret=secret))
        self._asked[task] = subject

    def answers(self, *, within_s: float) -> Iterator[tuple[UUID, Probed]]:
        """The questions answered by the time the first one is, or none after `within_s`."""
        if not self._asked:
            return
        done, _ = self._runner.run(_first_of(set(self._asked), within_s))
        for task in done:
            yield self._asked.pop(task), task.result()


async def _first_of(
    tasks: set[asyncio.Task[Probed]], within_s: float
) -> tuple[set[asyncio.Task[Probed]], set[asyncio.Task[Probed]]]:
    return await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)


async def ask(provider: str, *, region: str, secret: Secret) -> Probed:
    """Ask the provider about the key. Ends within the deadline and never raises: an exception could hold the key."""
    key = secret.reveal()
    if pasted.is_admin_key(provider, key):
        return Probed(Outcome(Verdict.RESTRICTED, Attempt.OK, Reason.ADMIN_KEY.value))
    try:
        async with asyncio.timeout(DEADLINE_S):
            if provider == Provider.OPENAI:
                probed = await _openai(key)
            elif provider == Provider.AZURE_SPEECH:
                probed = await _azure(key, region)
            else:
                probed = await _elevenlabs(key)
    except http.RequestFailed as failure:
        return Probed(classify.network_failure(failure.kind))
    except TimeoutError:
        return Probed(classify.network_failure("timeout"))
    except Exception as error:
        logger.error("probe.failed", provider=provider, error=type(error).__name__)
        return Probed(classify.network_failure("dropped"))
    return _without_echoes(probed, key)


async def _openai(key: str) -> Probed:
    base = settings.OPENAI_BASE_URL.rstrip("/")
    async with http.session(base) as session:
        outcome, answer = await _call(
            session, Provider.OPENAI, f"{base}/models", headers={"Authorization": f"Bearer {key}"}
        )
    return Probed(outcome, _ids("models", answer.get("data"), "id") if outcome.is_usable and answer else None)


async def _azure(key: str, region: str) -> Probed:
    # The region decides who receives the key: a refusal here is a mistake of ours, and nothing is sent.
    region = destinations.normalised_region(region)
    base = settings.AZURE_SPEECH_TTS_URL.replace("{region}", region).rstrip("/")
    async with http.session(base) as session:
        outcome, answer = await _call(
            session,
            Provider.AZURE_SPEECH,
            f"{base}/cognitiveservices/voices/list",
            headers={"Ocp-Apim-Subscription-Key": key},
        )
    return Probed(outcome, _ids("voices", answer, "ShortName") if outcome.is_usable else None)


async def _elevenlabs(key: str) -> Probed:
    """The subscription says most. Without the right to read it, the next calls show whether the key is known."""
    base = settings.ELEVENLABS_BASE_URL.rstrip("/")
    async with http.session(base) as session:
        for path in _ELEVENLABS_CALLS:
            outcome, answer = await _call(session, Provider.ELEVENLABS, f"{base}{path}", headers={"xi-api-key": key})
            if outcome.reason != Reason.MISSING_PERMISSION:
                return Probed(outcome, _elevenlabs_ids(answer) if outcome.is_usable else None)
    # Recognised three times and allowed to read nothing: it may synthesise perfectly well.
    return Probed(replace(outcome, reason=Reason.CANNOT_BE_CHECKED.value))


async def _call(
    session: aiohttp.ClientSession, provider: str, url: str, *, headers: Mapping[str, str]
) -> tuple[Outcome, Any]:
    answer = await http.get(session, url, headers=headers, max_bytes=classify.MAX_BODY, deadline_s=DEADLINE_S)
    outcome = classify.classify(provider, status=answer.status, headers=answer.headers, body=answer.body)
    if outcome.reason == Reason.REQUEST_FAULT:
        # Our request is known to be right, so this is not the provider we think it is.
        outcome = replace(outcome, attempt=Attempt.UNREACHABLE, reason=Reason.UNKNOWN_ANSWER.value)
    return outcome, classify.parse(answer.body) if outcome.is_usable and answer.status == 200 else None


def _elevenlabs_ids(answer: Any) -> Capabilities | None:
    if isinstance(answer, list):
        return _ids("models", answer, "model_id")
    if isinstance(answer, dict) and "voices" in answer:
        return _ids("voices", answer["voices"], "voice_id")
    return None


def _ids(kind: str, items: Any, field: str) -> Capabilities | None:
    """Only what looks like an id, each once, a bounded number of them."""
    if not isinstance(items, list):
        return None
    found = (item.get(field) for item in items[:MAX_IDS] if isinstance(item, dict))
    return {kind: list(dict.fromkeys(text for text in found if isinstance(text, str) and _ID.fullmatch(text)))}


def _without_echoes(probed: Probed, key: str) -> Probed:
    """A provider may send the key back where an id should be; whatever resembles it is not kept."""
    pieces = (key[-8:].lower(), key[:12].lower())

    def echoes(text: str) -> bool:
        return any(piece in text.lower() for piece in pieces)

    outcome = probed.outcome
    if echoes(outcome.request_id):
        outcome = replace(outcome, request_id="")
    capabilities = probed.capabilities and {
        kind: [text for text in ids if not echoes(text)] for kind, ids in probed.capabilities.items()
    }
    return Probed(outcome, capabilities)
