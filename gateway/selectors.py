"""Reads for the assistant pages: who an assistant would run on, which models and voices there are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from django.urls import reverse
from django.utils import timezone

from accounts.models import Account, User
from billing import routing
from billing.models import Leg, Price
from billing.routing import Decision
from billing.selectors import RouteFacts, explain_facts, standings
from gateway.models import Assistant, Message
from gateway.upstreams import voices
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


def last_talked_to(account: Account, user: User) -> Assistant | None:
    """The assistant this person wrote to last, else the account's first by name."""
    line = Message.objects.of(account).filter(user=user).select_related("assistant").order_by("-created_at").first()
    return line.assistant if line else Assistant.objects.of(account).order_by("name").first()


def conversation(assistant: Assistant, user: User) -> list[Message]:
    """One person's last 60 lines with an assistant, oldest first, each answer with its `receipts`."""
    latest = Message.objects.filter(assistant=assistant, user=user).order_by("-created_at", "-id")[:60]
    lines = list(reversed(latest))
    attach_receipts(lines)
    return lines


def attach_receipts(lines: Sequence[Message]) -> None:
    """Give each line `receipts`: the legs of the requests that answered and last spoke it, each with its `why`."""
    asked = {request_id for line in lines for request_id in (line.chat_request_id, line.speech_request_id)}
    wanted = [request_id for request_id in asked if request_id is not None]
    found: dict[UUID, list[Leg]] = {}
    for leg in Leg.objects.filter(request_id__in=wanted).order_by("created_at"):
        leg.why = routing.REASONS.get(leg.reason, "")  # type: ignore[attr-defined]
        found.setdefault(leg.request_id, []).append(leg)
    for line in lines:
        legs = [
            found.get(request_id, []) for request_id in (line.chat_request_id, line.speech_request_id) if request_id
        ]
        line.receipts = [leg for group in legs for leg in group]  # type: ignore[attr-defined]


def _assistants(account: Account) -> list[Assistant]:
    return list(Assistant.objects.of(account).order_by("name"))


def _models_of(connection: Connection) -> list[str]:
    seen = connection.capabilities.get("models", [])
    return [model for model in seen if isinstance(model, str)][:200]
