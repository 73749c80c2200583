"""Use My API Keys: the account's switch between its own keys and platform credits."""

from django.db import transaction
from django.utils import timezone

from accounts.models import Account, User
from accounts.services import audit
from provider_keys import selectors
from provider_keys.errors import SwitchRefused
from provider_keys.models import Check, Connection
from provider_keys.readiness import Obstacle
from provider_keys.services import checks, connections


def obstacles(account: Account) -> list[Obstacle]:
    """What exactly keeps the switch off; empty when it may go on. Changes nothing."""
    return list(selectors.settings_page(account).obstacles)


def turn_on(*, account: Account, actor: User | None) -> Account:
    """Every leg of the three providers runs on the account's own keys from now on. On already: nothing happens.

    Everything is looked at again under lock. Raises `SwitchRefused` with all obstacles; keys
    whose verdict is too old, missing or bad are then being checked on the spot.
    """
    with transaction.atomic():
        account = connections.lock(account)
        if account.byok_enabled:
            return account
        # A check that ends now waits for us, or we for it: the verdicts below are the ones that count.
        list(Connection.objects.of(account).filter(slots__account=account).select_for_update(no_key=True, of=("self",)))
        page = selectors.settings_page(account)
        if not page.obstacles:
            return _turn(account, on=True, actor=actor)
    _ask_again(page, actor)
    raise SwitchRefused(page.obstacles)


def turn_off(*, account: Account, actor: User | None) -> Account:
    """Every leg is paid with platform credits from now on; the stored keys stay, dormant. Always possible."""
    with transaction.atomic():
        account = connections.lock(account)
        return _turn(account, on=False, actor=actor) if account.byok_enabled else account


def _turn(account: Account, *, on: bool, actor: User | None) -> Account:
    account.byok_enabled = on
    account.byok_changed_at = timezone.now()
    account.save(update_fields=["byok_enabled", "byok_changed_at"])
    audit.record(account=account, actor=actor, action="byok.turned_on" if on else "byok.turned_off", target=account)
    return account


def _ask_again(page: selectors.SettingsPage, actor: User | None) -> None:
    doubtful = [page.card(item.provider).selected for item in page.obstacles if item.provider and item.can_recheck]
    ids = [facts.id for facts in doubtful if facts is not None and not facts.status.is_checking]
    if ids:
        with transaction.atomic():
            rows = list(Connection.objects.of(page.account).filter(pk__in=ids, removed_at=None))
            checks.request(account=page.account, connections=rows, trigger=Check.Trigger.SWITCH, actor=actor)
