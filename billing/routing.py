"""The billing router: who pays for a leg, and why.

`decide` is pure. It is called once for a leg, before anything is sent; its answer is stored with the
leg and shown on the receipt, and the pages that explain it call the same function. Balance is not its
business: credits are looked at by the ledger, after the route is decided.
"""

from dataclasses import dataclass
from uuid import UUID

OWN_KEY = "own_key"
PLATFORM_CREDITS = "platform_credits"
CANNOT_BE_CHECKED = "cannot_be_checked"  # restricted, yet the key may well do the work: only use will show


@dataclass(frozen=True, slots=True)
class Standing:
    """What the router knows of an account and one provider. The slot fields are those of the slot's connection."""

    account_id: UUID
    provider: str
    account_active: bool
    byok_enabled: bool
    byok_allowed: bool
    slot_connection_id: UUID | None
    slot_connection_name: str
    slot_verdict: str
    slot_verdict_reason: str
    slot_secret_version: int | None
    slot_is_placeholder: bool
    platform_available: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Funding source, payer, connection and reason of one leg; or a refusal, and then nothing is sent."""

    funding_source: str  # empty when refused
    payer_id: UUID | None
    connection_id: UUID | None
    connection_name: str
    secret_version: int | None
    reason: str  # a key of REASONS
    refusal: str | None = None  # the error code, the same word as the reason

    @property
    def is_refused(self) -> bool:
        return self.refusal is not None


# Why, in words for the receipt, the settings page and the explain endpoint. Closed: `decide` knows no other reason.
REASONS: dict[str, str] = {
    "byok_off": "Use My API Keys is off, so platform credits pay.",
    "own_key_ready": "Use My API Keys is on and this provider's key passed its last check.",
    "own_key_untested": "Use My API Keys is on; the key was not checked yet and is tried as it is.",
    "own_key_unverifiable": "Use My API Keys is on; this key cannot be checked without spending and is tried as it is.",
    "account_suspended": "The account is suspended.",
    "byok_not_allowed": "Use My API Keys is on, but the plan no longer allows it. Credits are not used instead.",
    "byok_key_missing": "Use My API Keys is on and no key is selected for this provider.",
    "byok_placeholder": "Use My API Keys is on and this provider is marked as not used.",
    "byok_key_invalid": "The provider rejected the selected key.",
    "byok_key_restricted": "The selected key lacks a permission it needs at the provider.",
    "byok_key_region_mismatch": "The selected key does not work in its region.",
    "byok_key_quota_exhausted": "The provider account behind the selected key has no quota left.",
    "byok_key_locked": "The selected key is stored but cannot be opened at the moment. We have been told.",
    "platform_unavailable": "The platform has no key of its own for this provider.",
    "insufficient_credits": "There are not enough credits for this request.",
    "wallet_frozen": "Credits of this account are stopped while its ledger is being checked.",
    "price_unknown": "This model has no price, so it cannot be paid with credits.",
}

# What would change the answer, for the person who may change it.
REMEDIES: dict[str, str] = {
    "byok_off": "Turn on Use My API Keys to run on your own key.",
    "own_key_ready": "Turn off Use My API Keys to pay with credits.",
    "own_key_untested": "Check Status checks the key; turn off Use My API Keys to pay with credits.",
    "own_key_unverifiable": "Give the key read permissions to have it checked; or turn off Use My API Keys.",
    "account_suspended": "Ask the platform to lift the suspension.",
    "byok_not_allowed": "Ask for a plan with BYOK, or turn off Use My API Keys to pay with credits.",
    "byok_key_missing": "Add a key and select it for this provider, or turn off Use My API Keys.",
    "byok_placeholder": "Select a real key for this provider, or turn off Use My API Keys.",
    "byok_key_invalid": "Enter a working key, or turn off Use My API Keys.",
    "byok_key_restricted": "Give the key the missing permission at the provider, then press Check Status.",
    "byok_key_region_mismatch": "Add the key again with the region of its resource.",
    "byok_key_quota_exhausted": "Add funds or quota at the provider, then press Check Status.",
    "byok_key_locked": "Wait, or enter the key again.",
    "platform_unavailable": "Use your own key for this provider, or try later.",
    "insufficient_credits": "Add credits, send a shorter request, or turn on Use My API Keys.",
    "wallet_frozen": "Nothing you can do; turn on Use My API Keys to go on with your own key.",
    "price_unknown": "Choose a model from the price list, or turn on Use My API Keys.",
}

_DEAD = {
    "restricted": "byok_key_restricted",
    "region_mismatch": "byok_key_region_mismatch",
    "quota_exhausted": "byok_key_quota_exhausted",
    "placeholder": "byok_placeholder",
    "locked": "byok_key_locked",
}


def decide(standing: Standing) -> Decision:
    """Who pays for a leg of this account at this provider.

    The switch is strict: on, a leg runs on the account's own key or not at all; a key that cannot be
    used is a refusal with a code, never a charge.
    """
    if not standing.account_active:
        return _refused(standing, "account_suspended")
    if not standing.byok_enabled:
        if not standing.platform_available:
            return _refused(standing, "platform_unavailable")
        return Decision(
            funding_source=PLATFORM_CREDITS,
            payer_id=standing.account_id,
            connection_id=None,
            connection_name="",
            secret_version=None,
            reason="byok_off",
        )
    if not standing.byok_allowed:
        return _refused(standing, "byok_not_allowed")
    if standing.slot_connection_id is None:
        return _refused(standing, "byok_key_missing")
    if standing.slot_is_placeholder:
        return _refused(standing, "byok_placeholder")
    ready = _ready_reason(standing)
    if ready is None:
        return _refused(standing, _DEAD.get(standing.slot_verdict, "byok_key_invalid"))
    if standing.slot_secret_version is None:
        return _refused(standing, "byok_key_missing")
    return Decision(
        funding_source=OWN_KEY,
        payer_id=standing.account_id,
        connection_id=standing.slot_connection_id,
        connection_name=standing.slot_connection_name,
        secret_version=standing.slot_secret_version,
        reason=ready,
    )


def _ready_reason(standing: Standing) -> str | None:
    if standing.slot_verdict == "valid":
        return "own_key_ready"
    if standing.slot_verdict == "untested":
        return "own_key_untested"
    if standing.slot_verdict == "restricted" and standing.slot_verdict_reason == CANNOT_BE_CHECKED:
        return "own_key_unverifiable"
    return None


def _refused(standing: Standing, code: str) -> Decision:
    """A refusal names the connection at fault only where the key is what is wrong."""
    names_connection = code.startswith("byok_key_") or code == "byok_placeholder"
    return Decision(
        funding_source="",
        payer_id=None,
        connection_id=standing.slot_connection_id if names_connection else None,
        connection_name=standing.slot_connection_name if names_connection else "",
        secret_version=standing.slot_secret_version if names_connection else None,
        reason=code,
        refusal=code,
    )
