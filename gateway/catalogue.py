"""Reads of the API that are not a leg: the models an account can use, and the receipt of a request."""

from typing import Any
from uuid import UUID

from django.utils import timezone

from billing import routing
from billing import selectors as billing
from billing.models import Price
from provider_keys.models import Connection, Provider


def models(account_id: UUID, shape: str) -> Any:
    """What the account could use now, in the shape of the provider whose header asked."""
    if shape == Provider.ELEVENLABS:
        return [_elevenlabs_model(name) for name in _names(account_id, Provider.ELEVENLABS)]
    return {"object": "list", "data": _listed(account_id)}


def model(account_id: UUID, name: str) -> dict[str, Any] | None:
    """The entry of `models` with this name."""
    return next((entry for entry in _listed(account_id) if entry["id"] == name), None)


def _listed(account_id: UUID) -> list[dict[str, Any]]:
    return [
        {"id": name, "object": "model", "created": 0, "owned_by": owner}
        for provider, owner in ((Provider.OPENAI, "openai"), (Provider.ELEVENLABS, "elevenlabs"))
        for name in _names(account_id, provider)
    ]


def receipt(request_id: UUID, account_id: UUID) -> dict[str, Any] | None:
    found = billing.receipt(request_id, account_id)
    return None if found is None else found.as_dict()


def _names(account_id: UUID, provider: str) -> list[str]:
    """What the account's own key was seen to have, else what has a price; nothing when it would be refused."""
    [facts] = billing.standings([(account_id, provider)])
    decision = routing.decide(facts.standing)
    if decision.is_refused:
        return []
    priced = Price.objects.filter(provider=provider, valid_from__lte=timezone.now())
    names = sorted(set(priced.values_list("model", flat=True)))
    if decision.connection_id is None:
        return names
    capabilities = (
        Connection.objects.filter(account_id=account_id, pk=decision.connection_id)
        .values_list("capabilities", flat=True)
        .first()
    )
    seen = capabilities.get("models") if isinstance(capabilities, dict) else None
    return [name for name in seen if isinstance(name, str)] if seen else names


def _elevenlabs_model(name: str) -> dict[str, Any]:
    return {
        "model_id": name,
        "name": name.replace("_", " ").capitalize(),
        "can_do_text_to_speech": True,
        "can_do_voice_conversion": False,
        "languages": [],
    }
