""" "Who will pay for this, and why?", for a model, a voice or an assistant, by the function that routes."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from accounts.models import Account
from billing import selectors as billing
from gateway.errors import Refused
from gateway.models import Assistant
from gateway.upstreams import azure_speech, elevenlabs
from provider_keys.models import Provider


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about; one of them, or several."""

    provider: str = ""
    model: str = ""
    voice: str = ""
    assistant: UUID | None = None


class _Asked(msgspec.Struct):
    provider: str = ""
    model: str = ""
    voice: str = ""
    assistant: UUID | None = None


def read_question(raw: bytes) -> Question:
    try:
        asked = msgspec.json.decode(raw, type=_Asked)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        message = "Send a JSON object with text in 'provider', 'model' or 'voice', or an id in 'assistant'."
        raise Refused("invalid_json", message) from None
    if asked.provider and asked.provider not in Provider.values:
        raise Refused("invalid_value", "There is no such provider.", param="provider")
    if not (asked.model + asked.voice).isprintable() or max(len(asked.model), len(asked.voice)) > 120:
        raise Refused("invalid_value", "This is not a name.", param="model")
    if not (asked.provider or asked.model or asked.voice or asked.assistant):
        raise Refused("missing_required_parameter", "Name a model, a voice, a provider or an assistant.", param="model")
    return Question(asked.provider, asked.model, asked.voice, asked.assistant)


def answer(account_id: UUID, question: Question) -> dict[str, Any]:
    """One entry for each leg the question stands for. No provider is called and nothing is held."""
    account = Account.objects.get(pk=account_id)
    return {
        "object": "insighto.explanation",
        "legs": [
            {
                "kind": "chat" if provider == Provider.OPENAI else "speech",
                "provider": provider,
                "model": model or None,
                "voice": voice or None,
                **billing.explain(account=account, provider=provider, model=model).as_dict(),
            }
            for provider, model, voice in _legs(account, question)
        ],
    }


def _legs(account: Account, question: Question) -> list[tuple[str, str, str]]:
    if question.assistant is not None:
        found = Assistant.objects.of(account).filter(pk=question.assistant).first()
        if found is None:
            raise Refused("not_found", "There is no such assistant.")
        legs = [(str(Provider.OPENAI), found.chat_model, "")]
        if found.voice_provider:
            legs.append(_speech(found.voice_provider, found.speech_model, found.voice))
        return legs
    provider = question.provider or _provider_of(question)
    if provider == Provider.OPENAI:
        return [(provider, question.model, "")]
    return [_speech(provider, question.model, question.voice)]


def _provider_of(question: Question) -> str:
    if azure_speech.VOICE.fullmatch(question.voice) or question.model in ("neural", "hd"):
        return Provider.AZURE_SPEECH
    if elevenlabs.VOICE.fullmatch(question.voice) or question.model.startswith("eleven_"):
        return Provider.ELEVENLABS
    return Provider.OPENAI


def _speech(provider: str, model: str, voice: str) -> tuple[str, str, str]:
    if provider == Provider.AZURE_SPEECH:
        return provider, azure_speech.price_model(voice), voice
    return provider, model or elevenlabs.DEFAULT_MODEL, voice
