"""Reads for the assistant pages: who an assistant would run on, which models and voices there are."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from django.urls import reverse
from django.utils import timezone

from accounts.models import Account
from billing.models import Price
from billing.routing import Decision
from billing.selectors import RouteFacts, explain_facts, standings
from gateway.upstreams import voices
from gateway.models import Assistant, Message
from gateway.upstreams.voices import VoiceChoices
from provider_keys.impact import Impact
from provider_keys.models import Connection, Provider, Slot

FUNDING_WORDS = {"own_key": "Own key", "parent_key": "Parent's key", "platform_credits": "Credits"}


@dataclass(frozen=True, slots=True)
class Route:
    """What the router would decide for one leg now, in words."""

    kind: str  # Chat, Speech
    provider: str
    provider_label: str
    decision: Decision
    words: str
    remedy: str

    @property
    def tone(self) -> str:
        return "bad" if self.decision.is_refused else ("ok" if self.decision.connection_id else "idle")

    @property
    def label(self) -> str:
        if self.decision.is_refused:
            return "Refused"
        return self.decision.connection_name or FUNDING_WORDS[self.decision.funding_source]


@dataclass(frozen=True, slots=True)
class AssistantCard:
    assistant: Assistant
    routes: tuple[Route, ...]


def routes(account: Account) -> dict[str, Route]:
    """Who would pay for each provider's next leg: the very function that routes, without a provider call."""
    facts = standings([(account.pk, provider) for provider in Provider.values])
    return {fact.standing.provider: _route(fact, account) for fact in facts}


def switch_impact(account: Account, turning_on: bool) -> Iterator[Impact]:
    """How each assistant fares once the switch is set: the router asked as if it already were."""
    facts = standings([(account.pk, provider) for provider in Provider.values])
    now = {fact.standing.provider: _route(fact, account) for fact in facts}
    then = {
        fact.standing.provider: _route(replace(fact, standing=replace(fact.standing, byok_enabled=turning_on)), account)
        for fact in facts
    }
    for assistant in _assistants(account):
        after = routes_of(assistant, then)
        yield Impact(
            name=assistant.name,
            runs=not any(route.decision.is_refused for route in after),
            before=_in_words(routes_of(assistant, now)),
            after=_in_words(after),
            href=reverse("gateway:playground_show", args=[assistant.pk]),
        )


def _route(facts: RouteFacts, account: Account) -> Route:
    explained = explain_facts(facts, account_name=str(account))
    provider = Provider(facts.standing.provider)
    return Route(
        kind="Chat" if provider == Provider.OPENAI else "Speech",
        provider=provider.value,
        provider_label=str(provider.label),
        decision=explained.decision,
        words=explained.why,
        remedy=explained.remedy,
    )


def _in_words(routes: tuple[Route, ...]) -> str:
    return "; ".join(
        f"{route.kind}: {route.words}" if route.decision.is_refused else f"{route.kind}: {route.label}"
        for route in routes
    )


def assistant_cards(account: Account) -> list[AssistantCard]:
    """Every assistant with who would pay for its chat and its voice now."""
    by_provider = routes(account)
    return [AssistantCard(assistant, routes_of(assistant, by_provider)) for assistant in _assistants(account)]


def routes_of(assistant: Assistant, by_provider: dict[str, Route]) -> tuple[Route, ...]:
    wanted = [Provider.OPENAI.value] + ([assistant.voice_provider] if assistant.voice_provider else [])
    return tuple(by_provider[provider] for provider in wanted)


def assistant_names(account: Account) -> dict[UUID, str]:
    return dict(Assistant.objects.of(account).values_list("pk", "name"))


def chat_models(account: Account) -> list[str]:
    """Chat models with a list price now, then others the selected OpenAI key was seen to have."""
    priced = (
        Price.objects.filter(provider=Provider.OPENAI, unit=Price.Unit.TOKENS, output_micros__gt=0)
        .filter(valid_from__lte=timezone.now())
        .values_list("model", flat=True)
    )
    known = sorted(set(priced))
    slot = Slot.objects.of(account).filter(provider=Provider.OPENAI).select_related("connection").first()
    seen = _models_of(slot.connection) if slot and slot.connection else []
    return known + [model for model in seen if model not in known]


def voice_choices(account: Account) -> list[VoiceChoices]:
    """The voices of each speech provider, as the credential that would serve this account sees them."""
    return voices.available(account)


def conversation(assistant: Assistant, user_id: int) -> list[Message]:
    """One person's last 60 lines with an assistant, oldest first."""
    latest = Message.objects.filter(assistant=assistant, user_id=user_id).order_by("-created_at", "-id")[:60]
    return list(reversed(latest))


def _assistants(account: Account) -> list[Assistant]:
    return list(Assistant.objects.of(account).order_by("name"))


def _models_of(connection: Connection) -> list[str]:
    seen = connection.capabilities.get("models", [])
    return [model for model in seen if isinstance(model, str)][:200]
