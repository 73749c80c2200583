"""Which of a provider's headers reach the client."""

from collections.abc import Callable

from gateway import relay
from gateway.upstreams.base import Outgoing
from provider_keys.models import Provider
from tests.gateway.conftest import Customer

KEY = "sk-proj-Abcdefgh12345678Zyxwvuts"
CALL = Outgoing("https://provider", {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}, b"")


def test_the_provider_names_its_tenant_to_the_owner_of_the_key_only(customer: Callable[..., Customer]) -> None:
    buyer = customer()
    on_credits = buyer.chat()
    buyer.own(Provider.OPENAI)
    on_own_key = buyer.chat()

    assert (on_credits.status_code, on_own_key.status_code) == (200, 200)
    assert "openai-organization" not in on_credits.headers
    assert on_own_key.headers["openai-organization"]
    assert on_credits.headers["x-request-id"]


def test_a_header_that_repeats_part_of_the_key_goes_nowhere() -> None:
    traces = relay.traces(CALL)
    headers = {
        "x-request-id": f"req_{KEY[-8:]}",
        "request-id": KEY.upper(),
        "apim-request-id": "a1b2",
        "content-type": "application/json",
        "set-cookie": "session",
    }
    assert relay.passed(headers, traces) == [(b"apim-request-id", b"a1b2"), (b"content-type", b"application/json")]
