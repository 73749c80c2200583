from dataclasses import replace
from uuid import UUID

import pytest

from billing import routing
from billing.routing import Standing
from provider_keys.models import Verdict

ON = Standing(
    account_id=UUID(int=1),
    provider="openai",
    account_active=True,
    byok_enabled=True,
    byok_allowed=True,
    slot_connection_id=UUID(int=2),
    slot_connection_name="Ours",
    slot_verdict="valid",
    slot_verdict_reason="",
    slot_secret_version=3,
    slot_is_placeholder=False,
    platform_available=True,
)
OFF = replace(ON, byok_enabled=False)


@pytest.mark.parametrize(
    ("standing", "funding_source", "reason"),
    [
        (OFF, "platform_credits", "byok_off"),
        (replace(OFF, slot_verdict="invalid", byok_allowed=False), "platform_credits", "byok_off"),
        (ON, "own_key", "own_key_ready"),
        (replace(ON, platform_available=False), "own_key", "own_key_ready"),
        (replace(ON, slot_verdict="untested"), "own_key", "own_key_untested"),
        (
            replace(ON, slot_verdict="restricted", slot_verdict_reason="cannot_be_checked"),
            "own_key",
            "own_key_unverifiable",
        ),
    ],
)
def test_the_route_follows_the_switch_and_the_key(standing, funding_source, reason):
    decision = routing.decide(standing)

    assert (decision.funding_source, decision.reason, decision.refusal) == (funding_source, reason, None)
    assert decision.payer_id == standing.account_id
    assert (decision.connection_id == standing.slot_connection_id) == (funding_source == "own_key")
    assert (decision.secret_version == 3) == (funding_source == "own_key")


@pytest.mark.parametrize(
    ("standing", "code"),
    [
        (replace(ON, account_active=False), "account_suspended"),
        (replace(OFF, account_active=False), "account_suspended"),
        (replace(OFF, platform_available=False), "platform_unavailable"),
        (replace(ON, byok_allowed=False), "byok_not_allowed"),
        (replace(ON, slot_connection_id=None), "byok_key_missing"),
        (replace(ON, slot_secret_version=None), "byok_key_missing"),
        (replace(ON, slot_is_placeholder=True), "byok_placeholder"),
        (replace(ON, slot_verdict="placeholder"), "byok_placeholder"),
        (replace(ON, slot_verdict="invalid"), "byok_key_invalid"),
        (replace(ON, slot_verdict="restricted", slot_verdict_reason="scope"), "byok_key_restricted"),
        (replace(ON, slot_verdict="region_mismatch"), "byok_key_region_mismatch"),
        (replace(ON, slot_verdict="quota_exhausted"), "byok_key_quota_exhausted"),
        (replace(ON, slot_verdict="locked"), "byok_key_locked"),
        (replace(ON, slot_verdict="something new"), "byok_key_invalid"),
    ],
)
def test_what_cannot_be_routed_is_refused_and_nobody_pays(standing, code):
    decision = routing.decide(standing)

    assert decision.refusal == decision.reason == code
    assert decision.funding_source == ""
    assert decision.payer_id is None


@pytest.mark.parametrize("verdict", Verdict.values)
@pytest.mark.parametrize("is_placeholder", [True, False])
@pytest.mark.parametrize("connection_id", [None, UUID(int=2)])
@pytest.mark.parametrize("allowed", [True, False])
def test_with_the_switch_on_no_standing_ever_leads_to_credits(verdict, is_placeholder, connection_id, allowed):
    decision = routing.decide(
        replace(
            ON,
            slot_verdict=verdict,
            slot_is_placeholder=is_placeholder,
            slot_connection_id=connection_id,
            byok_allowed=allowed,
        )
    )

    assert decision.funding_source in ("own_key", "")
    assert decision.reason in routing.REASONS


def test_every_reason_says_why_and_what_would_change_it():
    assert routing.REASONS.keys() == routing.REMEDIES.keys()
