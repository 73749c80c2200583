"""Slots: which connection the legs of each provider use."""

from collections.abc import Mapping

from django.db import transaction
from django.utils import timezone

from accounts.models import Account, User
from accounts.services import audit
from provider_keys import readiness, selectors
from provider_keys.errors import ConnectionBeingChecked, ConnectionGone, ConnectionNotReady
from provider_keys.models import REQUIRED_PROVIDERS, Check, Connection, Provider, Slot
from provider_keys.readiness import ConnectionFacts, State
from provider_keys.services import checks, connections

_REFUSED: Mapping[State, str] = {
    State.UNTESTED: "has not been checked yet. It is being checked now; press Submit again when it has passed",
    State.REJECTED_ONCE: "was rejected and is being checked again",
    State.INVALID: "failed its check: the key is invalid",
    State.RESTRICTED: "failed its check: the key lacks a permission",
    State.QUOTA_EXHAUSTED: "failed its check: the provider account has no quota",
    State.REGION_MISMATCH: "failed its check: the key does not work in its region",
    State.LOCKED: "is locked at the moment",
    State.ELSEWHERE: "was stored for another provider address; enter the key again",
}


def create_missing(account: Account) -> None:
    """One slot per provider; a repeat adds nothing."""
    Slot.objects.bulk_create([Slot(account=account, provider=provider) for provider in Provider], ignore_conflicts=True)


def select(*, account: Account, provider: str, connection: Connection | None, actor: User | None) -> Slot:
    """Put `connection` into the account's slot for `provider`; None empties it. See `select_many`."""
    return select_many(account=account, choices={Provider(provider): connection}, actor=actor)[0]


def select_many(*, account: Account, choices: Mapping[Provider, Connection | None], actor: User | None) -> list[Slot]:
    """Save the page's choices together, or none of them; selecting what is selected changes nothing.

    With the switch on, a slot takes only a key that passed its check, and a required slot is
    never emptied: `ConnectionNotReady`, or `ConnectionBeingChecked` while the answer is on
    its way (a key that may pass after all is asked about again). `ConnectionGone` for a connection that is not
    there, of another provider, or another account's.
    """
    doubtful: list[Connection] = []
    try:
        with transaction.atomic():
            account = connections.lock(account)
            create_missing(account)
            return _select_locked(account, choices, actor, doubtful)
    except ConnectionNotReady:
        # The refusal rolled everything back; that the key should be looked at again is kept.
        if doubtful:
            with transaction.atomic():
                checks.request(account=account, connections=doubtful, trigger=Check.Trigger.SWITCH, actor=actor)
        raise


def _select_locked(
    account: Account,
    choices: Mapping[Provider, Connection | None],
    actor: User | None,
    doubtful: list[Connection],
) -> list[Slot]:
    found = {slot.provider: slot for slot in Slot.objects.of(account).select_related("connection")}
    rows = {provider: _present(account, provider, choice) for provider, choice in choices.items()}
    changed = [provider for provider, row in rows.items() if found[provider].connection != row]
    if account.byok_enabled:
        _refuse_what_is_not_ready(account, {provider: rows[provider] for provider in changed}, doubtful)
    for provider in changed:
        slot, before = found[provider], found[provider].connection
        slot.connection = rows[provider]
        slot.changed_at = timezone.now()
        slot.save(update_fields=["connection", "changed_at"])
        audit.record(
            account=account,
            actor=actor,
            action="slot.selected",
            target=slot,
            detail={
                "provider": str(provider),
                "before": before.name if before else "",
                "after": slot.connection.name if slot.connection else "",
                "live": account.byok_enabled,
            },
        )
    return [found[provider] for provider in choices]


def _present(account: Account, provider: Provider, choice: Connection | None) -> Connection | None:
    if choice is None:
        return None
    row = connections.present(account, choice)
    if row.provider != provider:
        raise ConnectionGone(field=str(provider))
    return row


def _refuse_what_is_not_ready(
    account: Account, wanted: Mapping[Provider, Connection | None], doubtful: list[Connection]
) -> None:
    page = selectors.settings_page(account)
    refusals: list[tuple[str, str, bool]] = []
    for provider, row in wanted.items():
        facts = next((item for item in page.card(provider).connections if row and item.id == row.pk), None)
        refusal = _refusal(provider, facts)
        if refusal:
            is_on_its_way = facts is not None and facts.status.is_checking
            can_ask = facts is not None and facts.status.state not in (State.LOCKED, State.ELSEWHERE, State.NOT_USED)
            if row and can_ask and not is_on_its_way:
                doubtful.append(row)
            waiting = facts is not None and (is_on_its_way or facts.status.state is State.UNTESTED)
            refusals.append((str(provider), refusal, waiting))
    if refusals:
        kind = ConnectionBeingChecked if all(waiting for *_, waiting in refusals) else ConnectionNotReady
        raise kind(" ".join(words for _, words, _ in refusals), field=refusals[0][0])


def _refusal(provider: Provider, facts: ConnectionFacts | None) -> str:
    """Why this may not go into a live slot; empty when it may."""
    brand = readiness.BRANDS[provider]
    if facts is None or facts.is_placeholder:
        if provider not in REQUIRED_PROVIDERS:
            return ""
        return f"{brand} needs a key while Use My API Keys is on; the one in use stays."
    state = facts.status.state
    if state.is_good:
        return ""
    said = "is being checked; press Submit again when it has passed" if facts.status.is_checking else _REFUSED[state]
    return f"The {brand} key “{facts.name}” {said}. The one in use stays."
