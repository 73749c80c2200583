"""Checks: asked for, run together, and what their answers (and those of real traffic) do to a verdict.

A verdict follows only definite evidence, bound to the secret version it is about. A key that
was good needs two rejections, a minute apart, before it is called bad; while many accounts'
keys of one provider are rejected together, none is (the breaker).
"""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import Account, AuditEvent, User
from accounts.services import audit, outbox
from insighto.lib.secret import Secret
from provider_keys import probes
from provider_keys.classify import Outcome, Reason
from provider_keys.errors import CredentialLocked, CredentialUnreadable, TooManyChecks
from provider_keys.models import Attempt, Check, Connection, Credential, Slot, Verdict
from provider_keys.probes import Probed
from provider_keys.services import vault

logger = structlog.get_logger(__name__)

CHECK_ACCOUNT: Final = "provider_keys.check_account"
CONFIRM_CONNECTION: Final = "provider_keys.confirm_connection"

PRESSES_PER_MINUTE: Final = 10
LOST_AFTER: Final = timedelta(minutes=10)

CONFIRM_AFTER: Final = timedelta(seconds=60)
# Free calls do not see quota or the right to synthesise: a rejection of that kind, met in use, is given time
# to be met again before a check that sees nothing wrong may clear it.
REFUTE_USE_AFTER: Final = timedelta(minutes=10)
ASK_AGAIN_AT_MOST_EVERY: Final = timedelta(hours=1)
GIVE_UP_CONFIRMING_AFTER: Final = timedelta(hours=24)
UNLOCK_AGAIN_AFTER: Final = timedelta(minutes=10)

BREAKER_ACCOUNTS: Final = 5
BREAKER_WINDOW: Final = timedelta(minutes=10)

# A run takes in checks asked for while it runs, so that none waits for a provider that hangs.
TAKE_IN_FOR_S: Final = 20.0
LOOK_FOR_MORE_EVERY_S: Final = 0.2
LEASE: Final = timedelta(seconds=60)  # TAKE_IN_FOR_S, one probe, and the writing

_UNSEEN_BY_CHECKS: Final = frozenset({Verdict.RESTRICTED, Verdict.QUOTA_EXHAUSTED})


@transaction.atomic
def request(
    *, account: Account, connections: Sequence[Connection], trigger: Check.Trigger, actor: User | None = None
) -> list[Check]:
    """Have the connections checked together, in the caller's transaction; the checks in the order of the page.

    A check that runs already is joined. A placeholder is judged here and now. Removed and foreign
    connections are passed over. Raises `TooManyChecks` when a person presses too often.
    """
    # One at a time per account: two presses must join, not double.
    Account.objects.select_for_update(no_key=True).get(pk=account.pk)
    now = timezone.now()
    wanted = Connection.objects.of(account).filter(pk__in=[row.pk for row in connections], removed_at=None)
    recent = Check.objects.of(account).filter(connection__in=wanted, finished_at=None)
    recent.filter(requested_at__lte=now - LOST_AFTER).update(finished_at=now, **_gave_up())
    running = {(row.connection_id, row.secret_version): row for row in recent}
    rows = list(wanted.order_by("created_at", "pk"))
    fresh = [row for row in rows if (row.pk, row.current_version) not in running]
    if fresh and trigger == Check.Trigger.PERSON:
        _refuse_haste(account, now)
        audit.record(account=account, actor=actor, action="checks.requested", detail={"count": len(fresh)})
    for row in fresh:
        running[row.pk, row.current_version] = _create(row, trigger, now)
    if any(not row.is_placeholder for row in fresh):
        outbox.add(kind=CHECK_ACCOUNT, subject=str(account.pk), account=account)
    return [running[row.pk, row.current_version] for row in rows]


def request_selected(*, account: Account, actor: User) -> list[Check]:
    """Check Status: every connection that a slot of the account holds."""
    selected = Slot.objects.of(account).exclude(connection=None).select_related("connection")
    rows = [slot.connection for slot in selected if slot.connection is not None]
    return request(account=account, connections=rows, trigger=Check.Trigger.PERSON, actor=actor)


def run_for_account(account_id: UUID) -> int:
    """Run all of the account's open checks at once, writing each result as it arrives; the number written."""
    written = 0
    seen: set[UUID] = set()
    take_in_until = time.monotonic() + TAKE_IN_FOR_S
    with probes.Panel() as panel:
        while True:
            if time.monotonic() < take_in_until:
                for check in _open_checks(account_id).exclude(pk__in=seen):
                    seen.add(check.pk)
                    opened = _open(check)
                    if isinstance(opened, Secret):
                        provider, region = check.connection.provider, check.connection.region
                        panel.ask(check.pk, provider=provider, region=region, secret=opened)
                    else:
                        written += _write(check.pk, Probed(opened))
            if not panel.is_waiting:
                return written
            for check_id, probed in panel.answers(within_s=LOOK_FOR_MORE_EVERY_S):
                written += _write(check_id, probed)


def confirm(connection_id: UUID) -> None:
    """Look a second time at a key whose rejection is not confirmed, or which was locked; else do nothing."""
    row = Connection.objects.filter(pk=connection_id, removed_at=None).select_related("account").first()
    if row is not None and (row.rejected_at is not None or row.verdict == Verdict.LOCKED):
        request(account=row.account, connections=[row], trigger=Check.Trigger.CONFIRM)


def give_up(account_id: UUID) -> None:
    """The work was tried too often: end the account's open checks, so that no page waits for them."""
    _open_checks(account_id).update(finished_at=timezone.now(), **_gave_up())


def record_evidence(*, connection_id: UUID, secret_version: int, outcome: Outcome) -> None:
    """What real traffic on a key taught us, by the same rules. Cheap, and silent, when it teaches nothing new."""
    row = Connection.objects.filter(pk=connection_id, current_version=secret_version, removed_at=None).first()
    if row is None or not _is_news(row, outcome, timezone.now()):
        return
    with transaction.atomic():
        row = _lock(connection_id)
        if row is not None and row.current_version == secret_version and row.removed_at is None:
            _learn(row, outcome, now=timezone.now(), in_use=True)


def is_breaker_open(provider: str, now: datetime) -> bool:
    """Good keys of many accounts are rejected together, more than are accepted: the fault is not theirs."""
    since = now - GIVE_UP_CONFIRMING_AFTER
    rejected = Connection.objects.filter(provider=provider, rejected_at__gte=since, removed_at=None)
    rejected_count = rejected.values("account_id").distinct().count()
    if rejected_count < BREAKER_ACCOUNTS:
        return False
    accepted = Check.objects.filter(
        connection__provider=provider, finished_at__gte=now - BREAKER_WINDOW, verdict=Verdict.VALID
    )
    return rejected_count > accepted.values("account_id").distinct().count()


# Asking.


def _create(row: Connection, trigger: Check.Trigger, now: datetime) -> Check:
    check = Check(
        account_id=row.account_id,
        connection=row,
        secret_version=row.current_version,
        trigger=trigger,
        requested_at=now,
    )
    if row.is_placeholder:
        check.finished_at, check.verdict, check.reason = now, Verdict.PLACEHOLDER, Reason.PLACEHOLDER
    check.save(force_insert=True)
    return check


def _refuse_haste(account: Account, now: datetime) -> None:
    """All checks of one press share their time, so counting times counts presses."""
    pressed = Check.objects.of(account).filter(
        trigger=Check.Trigger.PERSON, requested_at__gt=now - timedelta(minutes=1)
    )
    if pressed.values("requested_at").distinct().count() >= PRESSES_PER_MINUTE:
        raise TooManyChecks


def _gave_up() -> dict[str, str]:
    return {"attempt": Attempt.UNREACHABLE, "reason": Reason.GAVE_UP}


def _open_checks(account_id: UUID) -> QuerySet[Check]:
    return Check.objects.filter(account_id=account_id, finished_at=None).select_related("connection")


def _open(check: Check) -> Secret | Outcome:
    """The secret to ask about, or what is known without asking."""
    credential = (
        Credential.objects.filter(
            account_id=check.account_id, connection_id=check.connection_id, secret_version=check.secret_version
        )
        .select_related("connection")
        .first()
    )
    if credential is None or credential.destroyed_at is not None:
        return Outcome(None, Attempt.NONE, Reason.SUPERSEDED)
    try:
        return vault.unseal(credential.sealed())
    except CredentialLocked:
        return Outcome(Verdict.LOCKED, Attempt.NONE, Reason.LOCKED)
    except CredentialUnreadable:
        return Outcome(Verdict.LOCKED, Attempt.NONE, Reason.UNREADABLE)


# Learning.


@transaction.atomic
def _write(check_id: UUID, probed: Probed) -> int:
    """One result: to the check, and to the connection if it still has the version that was asked about."""
    check = Check.objects.select_for_update(no_key=True).get(pk=check_id)
    if check.finished_at is not None:
        return 0  # a second worker was faster
    now = timezone.now()
    outcome = probed.outcome
    row = _lock(check.connection_id)
    if row is None or row.removed_at is not None or row.current_version != check.secret_version:
        outcome = Outcome(None, Attempt.NONE, Reason.SUPERSEDED)
    check.finished_at = now
    check.verdict = outcome.verdict or ""
    check.attempt = outcome.attempt
    check.reason = outcome.reason
    check.http_status = outcome.http_status
    check.provider_code = outcome.provider_code
    check.provider_request_id = outcome.request_id
    check.save()
    if row is not None and outcome.reason != Reason.SUPERSEDED:
        if probed.capabilities is not None:
            row.capabilities = probed.capabilities
        _learn(row, outcome, now=now, in_use=False)
    return 1


def _lock(connection_id: UUID) -> Connection | None:
    return Connection.objects.filter(pk=connection_id).select_for_update(no_key=True).first()


def _is_news(row: Connection, outcome: Outcome, now: datetime) -> bool:
    """Busy keys send evidence with every request: most of it repeats what the row says."""
    if outcome.verdict is None:
        if outcome.attempt == Attempt.OK:
            return False  # the request's own fault
        return row.attempt != outcome.attempt or row.attempt_at is None or now - row.attempt_at > timedelta(seconds=10)
    if row.rejected_at is not None:
        return outcome.is_usable or now - row.rejected_at >= CONFIRM_AFTER
    said_at = row.verdict_at
    return row.verdict != outcome.verdict or said_at is None or now - said_at > timedelta(hours=1)


def _learn(row: Connection, outcome: Outcome, *, now: datetime, in_use: bool) -> None:
    """Change the locked row as this evidence demands, and see to it that open questions are asked again."""
    if outcome.attempt != Attempt.NONE:
        row.attempt, row.attempt_reason, row.attempt_at = outcome.attempt, outcome.reason, now
        row.retry_at = now + timedelta(seconds=outcome.retry_after_s) if outcome.retry_after_s else None
    if outcome.verdict is None:
        _learn_nothing(row, now, in_use=in_use)
    elif outcome.is_usable:
        _accept(row, outcome, now, in_use=in_use)
    elif outcome.verdict == Verdict.LOCKED:
        _set_verdict(row, Verdict.LOCKED, outcome.reason, now)
    elif _is_good(row):
        _reject_good(row, outcome, now, in_use=in_use)
    else:
        _set_verdict(row, outcome.verdict, outcome.reason, now)
    row.save()


def _learn_nothing(row: Connection, now: datetime, *, in_use: bool) -> None:
    if in_use:
        return
    if row.verdict == Verdict.LOCKED:
        # It opened, or nobody could have been asked; what is unknown now is only whether it is good.
        _set_verdict(row, Verdict.UNTESTED, "", None)
    elif row.rejected_at is not None:
        if now - row.rejected_at > GIVE_UP_CONFIRMING_AFTER:
            row.rejected_at, row.rejected_verdict = None, ""
        else:
            _look_again(row, now + _patience(now - row.rejected_at))


def _accept(row: Connection, outcome: Outcome, now: datetime, *, in_use: bool) -> None:
    if not in_use and _awaits_real_use(row, now):
        return
    is_proved = row.verdict == Verdict.VALID and row.verdict_reason == Reason.PROVED_IN_USE
    if is_proved and outcome.reason == Reason.CANNOT_BE_CHECKED:
        # Recognised, and served by it before: that it may not list models is no news.
        _set_verdict(row, Verdict.VALID, Reason.PROVED_IN_USE, now)
        return
    _set_verdict(row, outcome.verdict or Verdict.VALID, outcome.reason, now)


def _reject_good(row: Connection, outcome: Outcome, now: datetime, *, in_use: bool) -> None:
    """The first rejection is only remembered; a later one convinces, unless everybody is rejected."""
    if row.rejected_at is None:
        row.rejected_at, row.rejected_verdict = now, outcome.verdict or ""
        wait = REFUTE_USE_AFTER if in_use and outcome.verdict in _UNSEEN_BY_CHECKS else CONFIRM_AFTER
        _look_again(row, now + wait)
        return
    age = now - row.rejected_at
    if age < CONFIRM_AFTER:
        row.rejected_verdict = outcome.verdict or ""
        _look_again(row, row.rejected_at + CONFIRM_AFTER)
        return
    if is_breaker_open(row.provider, now):
        _tell_operators(row.provider, now)
        _look_again(row, now + _patience(age))
        return
    _set_verdict(row, outcome.verdict or Verdict.INVALID, outcome.reason, now)
    detail = {"provider": row.provider, "verdict": row.verdict, "reason": row.verdict_reason}
    audit.record(account=row.account, actor=None, action="connection.rejected", target=row, detail=detail)


def _set_verdict(row: Connection, verdict: str, reason: str, at: datetime | None) -> None:
    row.verdict, row.verdict_reason, row.verdict_at = verdict, reason, at
    row.rejected_at, row.rejected_verdict = None, ""
    if verdict == Verdict.LOCKED and reason == Reason.LOCKED:
        _look_again(row, (at or timezone.now()) + UNLOCK_AGAIN_AFTER)


def _is_good(row: Connection) -> bool:
    return row.verdict == Verdict.VALID or (
        row.verdict == Verdict.RESTRICTED and row.verdict_reason == Reason.CANNOT_BE_CHECKED
    )


def _awaits_real_use(row: Connection, now: datetime) -> bool:
    """The key was rejected in use for what a check cannot see, a short while ago."""
    if row.rejected_at is None or row.rejected_verdict not in _UNSEEN_BY_CHECKS:
        return False
    if now - row.rejected_at >= REFUTE_USE_AFTER:
        return False
    # A check that rejects writes the same time to both rows.
    return not Check.objects.filter(
        account_id=row.account_id, connection=row, finished_at=row.rejected_at, verdict=row.rejected_verdict
    ).exists()


def _patience(age: timedelta) -> timedelta:
    """The longer nothing definite was heard, the longer until the next try."""
    return min(max(age, CONFIRM_AFTER), ASK_AGAIN_AT_MOST_EVERY)


def _look_again(row: Connection, at: datetime) -> None:
    outbox.add(kind=CONFIRM_CONNECTION, subject=str(row.pk), account=row.account, available_at=at)


def _tell_operators(provider: str, now: datetime) -> None:
    logger.error("checks.breaker_open", provider=provider)
    told = AuditEvent.objects.filter(action="checks.breaker_open", created_at__gt=now - timedelta(hours=1))
    if not told.filter(detail__provider=provider).exists():
        audit.record(account=None, actor=None, action="checks.breaker_open", detail={"provider": provider})
