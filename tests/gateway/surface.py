"""The same script against the sandbox directly and through us: clients for both ways, and what a comparison ignores."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import elevenlabs
import httpx
import openai

from insighto.sandbox import keys
from tests.gateway.conftest import Customer
from tests.sandbox_server import SandboxServer


@contextmanager
def openai_pair(
    buyer: Customer, sandbox: SandboxServer, key: str = ""
) -> Iterator[tuple[openai.OpenAI, openai.OpenAI]]:
    """The official client on the provider itself, and on us."""
    direct = key or keys.valid_key("openai", "mine")
    with (
        openai.OpenAI(api_key=direct, base_url=sandbox.openai_url, max_retries=0, http_client=_http()) as one,
        openai.OpenAI(api_key=buyer.token, base_url=f"{buyer.url}/v1", max_retries=0, http_client=_http()) as other,
    ):
        yield one, other


def elevenlabs_pair(
    buyer: Customer, sandbox: SandboxServer, http: httpx.Client, key: str = ""
) -> tuple[elevenlabs.ElevenLabs, elevenlabs.ElevenLabs]:
    direct = key or keys.valid_key("elevenlabs", "mine")
    return (
        elevenlabs.ElevenLabs(api_key=direct, base_url=sandbox.elevenlabs_url, httpx_client=http),
        elevenlabs.ElevenLabs(api_key=buyer.token, base_url=buyer.url, httpx_client=http),
    )


def _http() -> openai.DefaultHttpxClient:
    return openai.DefaultHttpxClient(trust_env=False)


# Made anew for every answer, whoever asks.
_FRESH = frozenset({"id", "item_id", "created", "created_at", "completed_at", "_request_id"})


def comparable(value: Any) -> Any:
    """An answer without what no two answers share."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(warnings=False)
    if isinstance(value, dict):
        return {name: comparable(item) for name, item in value.items() if name not in _FRESH}
    return [comparable(item) for item in value] if isinstance(value, list | tuple) else value


def refusal(error: openai.APIStatusError) -> tuple[Any, ...]:
    return type(error), error.status_code, error.code, error.param, error.type, error.message
