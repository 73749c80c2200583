"""OpenAI's surface with its official client: directly and through us, field for field."""

from collections.abc import Callable
from typing import Any

import openai
import pytest

from billing.money import MICROS_PER_CREDIT
from insighto.sandbox import keys
from tests.gateway.conftest import Customer, listed_micros
from tests.gateway.surface import comparable, openai_pair, refusal
from tests.gateway.test_funding import error_code
from tests.gateway.test_surface_faults import post, respond
from tests.sandbox_server import SandboxServer

MakeCustomer = Callable[..., Customer]

EMBEDDINGS: list[dict[str, Any]] = [
    {"input": "A harbour"},
    {"input": ["A harbour", "a boat"], "dimensions": 64},
    {"input": [1, 2, 3, 4], "encoding_format": "float", "dimensions": 8},
    {"input": [[1, 2], [3]], "encoding_format": "base64", "dimensions": 8},
]


@pytest.mark.parametrize("fields", EMBEDDINGS, ids=range(len(EMBEDDINGS)))
@pytest.mark.parametrize("funding", ["own", "credits"])
def test_embeddings_are_the_providers_and_cost_their_tokens(
    customer: MakeCustomer, sandbox: SandboxServer, funding: str, fields: dict[str, Any]
) -> None:
    buyer = customer()
    before = buyer.micros
    if funding == "own":
        buyer.own("openai")

    with openai_pair(buyer, sandbox) as (direct, through):
        expected = direct.embeddings.create(model="text-embedding-3-small", **fields)
        raw = through.embeddings.with_raw_response.create(model="text-embedding-3-small", **fields)

    assert comparable(raw.parse()) == comparable(expected)
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["x-ratelimit-limit-requests"] == "10000"
    assert ("openai-organization" in raw.headers) is (funding == "own")
    leg = buyer.leg()
    assert (leg.kind, leg.input_units, leg.usage_source) == ("embedding", expected.usage.prompt_tokens, "provider")
    assert before - buyer.micros == leg.cost_micros == (listed_micros(leg) if funding == "credits" else 0)
    assert funding == "credits" or leg.estimate_micros == listed_micros(leg)


def test_an_embedding_refused_by_the_provider_raises_the_same_exception(
    customer: MakeCustomer, sandbox: SandboxServer
) -> None:
    buyer = customer()
    buyer.own("openai")
    raised = []
    with openai_pair(buyer, sandbox) as pair:
        for client in pair:
            with pytest.raises(openai.BadRequestError) as caught:
                client.embeddings.create(model="text-embedding-3-small", input=[])
            raised.append(refusal(caught.value))
    assert raised[0] == raised[1]


@pytest.mark.parametrize("outcome", ["no_usage", "hostile_usage"])
def test_embeddings_without_believable_usage_are_counted(
    customer: MakeCustomer, sandbox: SandboxServer, outcome: str
) -> None:
    buyer = customer()
    buyer.own("openai", outcome)
    response = post(buyer, "/v1/embeddings", json={"model": "text-embedding-3-small", "input": ["a" * 60, "b" * 60]})
    leg = buyer.leg(response)
    assert response.status_code == 200
    assert (leg.input_units, leg.usage_source, leg.is_flagged) == (20, "counted", outcome == "hostile_usage")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "text-embedding-3-small", "input": "a", "service_tier": "x"}, "unsupported_on_credits"),
        ({"model": "text-embedding-9", "input": "a"}, "price_unknown"),
        ({"model": "tts-1", "input": "a"}, "invalid_value"),
        ({"model": 7, "input": "a"}, "invalid_value"),
        ({"input": "a"}, "missing_required_parameter"),
    ],
)
def test_on_credits_an_embedding_without_a_known_price_is_refused(
    customer: MakeCustomer, sandbox: SandboxServer, body: dict[str, Any], code: str
) -> None:
    response = post(customer(), "/v1/embeddings", json=body)
    assert (response.status_code, error_code(response)) == (400, code)
    assert sandbox.calls() == []


def test_a_model_is_had_by_name_and_an_unknown_one_is_not_found(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    with openai_pair(customer(), sandbox) as (_, through):
        listed = {model.id: model for model in through.models.list()}
        assert comparable(through.models.retrieve("gpt-4o-mini")) == comparable(listed["gpt-4o-mini"])
        for name in ("gpt-0", "../user", "x" * 200):
            with pytest.raises(openai.NotFoundError) as caught:
                through.models.retrieve(name)
            assert caught.value.code == "model_not_found"


CHAT: dict[str, dict[str, Any]] = {
    "plain": {},
    "several answers": {"n": 3},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "a tool": {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_harbour",
                    "description": "Look up a harbour",
                    "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
                },
            }
        ],
        "tool_choice": "required",
    },
    "structured output": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "harbour",
                "schema": {"type": "object", "properties": {"depth": {"type": "integer"}}, "required": ["depth"]},
            },
        }
    },
    "an image": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                ],
            }
        ]
    },
    "what is the case anyway": {"service_tier": "default", "modalities": ["text"], "store": False},
}


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("name", CHAT)
def test_a_chat_with_any_field_of_known_price_is_the_providers(
    customer: MakeCustomer, sandbox: SandboxServer, name: str, funding: str
) -> None:
    buyer = customer()
    if funding == "own":
        buyer.own("openai")
    fields: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Tell me about the harbour"}],
        "max_tokens": 60,
        **CHAT[name],
    }
    with openai_pair(buyer, sandbox) as pair:
        plain = [comparable(client.chat.completions.create(**fields)) for client in pair]
        streamed = [comparable(list(client.chat.completions.create(**fields, stream=True))) for client in pair]

    assert plain[0] == plain[1]
    assert streamed[0] == streamed[1] != []
    leg = buyer.leg()
    assert leg.usage_source == "provider"
    assert leg.cost_micros == (listed_micros(leg) if funding == "credits" else 0)


HOSTED: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", {"web_search_options": {}}, "web_search_options"),
    ("/v1/chat/completions", {"service_tier": "priority"}, "service_tier"),
    ("/v1/chat/completions", {"modalities": ["text", "audio"]}, "modalities"),
    ("/v1/chat/completions", {"prediction": {"type": "content", "content": "a"}}, "prediction"),
    ("/v1/responses", {"tools": [{"type": "web_search"}]}, "tools: web_search"),
    ("/v1/responses", {"tools": [{"type": "code_interpreter", "container": {}}]}, "tools: code_interpreter"),
    ("/v1/responses", {"tools": [{"type": "file_search"}]}, "tools: file_search"),
    ("/v1/responses", {"tools": [{"type": "mcp", "server_url": "http://127.0.0.1"}]}, "tools: mcp"),
    ("/v1/responses", {"tools": [{"type": "image_generation"}]}, "tools: image_generation"),
    ("/v1/responses", {"background": True}, "background"),
    ("/v1/responses", {"service_tier": "flex"}, "service_tier"),
    ("/v1/responses", {"previous_response_id": "resp_1"}, "previous_response_id"),
    ("/v1/responses", {"conversation": "conv_1"}, "conversation"),
    ("/v1/responses", {"prompt": {"id": "pmpt_1"}}, "prompt"),
    ("/v1/responses", {"include": ["file_search_call.results"]}, "include: file_search_call.results"),
    ("/v1/responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}, "input: item_reference"),
    (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
        "input: file_id",
    ),
    (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://x/y.pdf"}]}]},
        "input: input_file",
    ),
]


@pytest.mark.parametrize(("path", "fields", "named"), HOSTED, ids=[each[2] for each in HOSTED])
def test_what_has_no_known_price_is_refused_by_name_on_credits_and_passes_on_the_own_key(
    customer: MakeCustomer, sandbox: SandboxServer, path: str, fields: dict[str, Any], named: str
) -> None:
    buyer = customer()
    body: dict[str, Any] = {"model": "gpt-4o-mini", "input": "a"}
    if path.endswith("completions"):
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a"}]}
    body |= fields

    refused = post(buyer, path, json=body)
    asked = sandbox.calls()
    buyer.own("openai")
    passed = post(buyer, path, json=body)

    assert (refused.status_code, error_code(refused)) == (400, "unsupported_on_credits")
    assert named in refused.json()["error"]["message"]
    assert asked == []
    assert passed.status_code == 200
    assert sandbox.calls()[-1]["fields"] == sorted(body)


RESPONSES: dict[str, dict[str, Any]] = {
    "text": {"input": "Tell me about the harbour"},
    "a conversation": {
        "instructions": "Be brief",
        "input": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello you"},
            {"role": "user", "content": [{"type": "input_text", "text": "Tell me about the harbour"}]},
        ],
    },
    "cut short": {"input": "Tell me about the harbour", "max_output_tokens": 16},
    "tools of the client": {
        "input": "Tell me about the harbour",
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": False}],
    },
}


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_is_the_providers_plain_and_streamed_and_costs_its_tokens(
    customer: MakeCustomer, sandbox: SandboxServer, name: str, funding: str
) -> None:
    buyer = customer()
    before = buyer.micros
    if funding == "own":
        buyer.own("openai")
    fields = {"model": "gpt-4o-mini", **RESPONSES[name]}
    with openai_pair(buyer, sandbox) as pair:
        plain = [client.responses.create(**fields) for client in pair]
        first = buyer.leg()
        streamed = [list(client.responses.create(**fields, stream=True)) for client in pair]
        second = buyer.leg()

    assert comparable(plain[0]) == comparable(plain[1])
    assert comparable(streamed[0]) == comparable(streamed[1]) != []
    usage = plain[1].usage
    for leg in (first, second):
        assert (leg.input_units, leg.output_units) == (usage.input_tokens, usage.output_tokens)
        assert leg.usage_source == "provider"
        assert leg.cost_micros == (listed_micros(leg) if funding == "credits" else 0)
    assert before - buyer.micros == first.cost_micros + second.cost_micros


@pytest.mark.parametrize("outcome", ["no_usage", "hostile_usage"])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_response_without_believable_usage_is_counted(
    customer: MakeCustomer, sandbox: SandboxServer, outcome: str, streamed: bool
) -> None:
    buyer = customer()
    sandbox.control(key=keys.valid_key("openai", "platform"), outcome=outcome)
    response = respond(buyer, stream=streamed)
    leg = buyer.leg(response)
    assert response.status_code == 200
    assert (leg.usage_source, leg.is_flagged) == ("counted", outcome == "hostile_usage")
    assert 0 < leg.output_units <= 100
    assert 0 < leg.cost_micros == listed_micros(leg)


def test_a_response_that_failed_says_so_and_what_came_of_it_is_paid(
    customer: MakeCustomer, sandbox: SandboxServer
) -> None:
    buyer = customer()
    sandbox.control(key=keys.valid_key("openai", "platform"), outcome="error_mid_stream")
    with openai_pair(buyer, sandbox) as (_, through):
        events = list(through.responses.create(model="gpt-4o-mini", input="Tell me of the harbour", stream=True))
    assert events[-1].type == "response.failed"
    leg = buyer.leg()
    assert (leg.state, leg.usage_source) == ("settled", "counted")
    assert 0 < leg.cost_micros == listed_micros(leg)


def test_a_response_that_breaks_off_raises_in_the_sdk_and_its_output_is_paid(
    customer: MakeCustomer, sandbox: SandboxServer
) -> None:
    buyer = customer()
    sandbox.control(key=keys.valid_key("openai", "platform"), outcome="breaks_mid_stream")
    sandbox.control(chunk_delay_s=0.02)
    with openai_pair(buyer, sandbox) as (_, through):
        stream = through.responses.create(model="gpt-4o-mini", input="Tell me of the harbour", stream=True)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
    assert caught.value.code == "provider_down"
    leg = buyer.leg()
    assert (leg.request.state, leg.usage_source) == ("failed", "counted")


BAD_RESPONSES: list[dict[str, Any]] = [
    {"input": "a", "max_output_tokens": 0},
    {"input": "a", "max_output_tokens": 10**30},
    {"input": "a", "max_output_tokens": "7"},
    {"input": "a", "stream": "yes"},
    {"input": "a", "tools": {}},
    {"input": "a", "tools": [7]},
    {"input": 7},
    {"input": {"a": 1}},
    {},
    {"input": [[[[[[[[[[{"type": "item_reference"}]]]]]]]]]]},
    {"input": [{"type": ["message"]}]},
]


@pytest.mark.parametrize("fields", BAD_RESPONSES, ids=range(len(BAD_RESPONSES)))
def test_a_response_that_means_nothing_is_a_400_on_credits(
    customer: MakeCustomer, sandbox: SandboxServer, fields: dict[str, Any]
) -> None:
    buyer = customer()
    response = post(buyer, "/v1/responses", json={"model": "gpt-4o-mini", **fields})
    assert response.status_code == 400, response.text
    assert sandbox.calls() == []
    assert buyer.micros == 100 * MICROS_PER_CREDIT
