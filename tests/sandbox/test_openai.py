import asyncio
import json
import time
from typing import Any

import openai
import pytest

from insighto.sandbox import audio, keys, tokens
from insighto.sandbox.keys import Outcome
from tests.sandbox_server import SandboxServer

MODEL = "gpt-6-luna"
ASK: list[Any] = [{"role": "user", "content": "How do I water a cactus in winter?"}]


def client(sandbox: SandboxServer, outcome: str = "valid", tag: str = "", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(
        api_key=keys.key(keys.OPENAI, outcome, tag or ("one" if outcome == "valid" else "")),
        base_url=sandbox.openai_url,
        max_retries=0,
        timeout=options.pop("timeout", 10),
        http_client=openai.DefaultHttpxClient(follow_redirects=False, trust_env=False),
        **options,
    )


def test_models_are_listed_and_each_can_be_had(sandbox: SandboxServer) -> None:
    with client(sandbox) as api:
        answer = api.models.with_raw_response.list()
        ids = [model.id for model in answer.parse().data]
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["openai-organization"].startswith("org-")
        assert MODEL in ids
        assert api.models.retrieve(MODEL).id == MODEL
        with pytest.raises(openai.NotFoundError) as refused:
            api.models.retrieve("gpt-0")
        assert refused.value.code == "model_not_found"


def test_a_chat_answers_in_sentences_about_the_prompt_and_counts_tokens(sandbox: SandboxServer) -> None:
    with client(sandbox) as api:
        answer = api.chat.completions.create(model=MODEL, messages=ASK)
        again = api.chat.completions.create(model=MODEL, messages=ASK)
    text = answer.choices[0].message.content
    assert text
    assert "cactus" in text
    assert text.count(".") + text.count("?") >= 3
    assert text == again.choices[0].message.content
    assert answer.usage
    assert answer.usage.completion_tokens == tokens.count(text)
    assert answer.usage.prompt_tokens == tokens.of_messages(ASK)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_the_same_and_reports_usage_only_when_asked(sandbox: SandboxServer) -> None:
    with client(sandbox) as api:
        whole = api.chat.completions.create(model=MODEL, messages=ASK)
        plain = list(api.chat.completions.create(model=MODEL, messages=ASK, stream=True))
        asked = list(
            api.chat.completions.create(model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True})
        )
    assert all(chunk.choices and chunk.usage is None for chunk in plain)
    assert len(plain) > 20
    assert "".join(chunk.choices[0].delta.content or "" for chunk in plain) == whole.choices[0].message.content
    assert plain[-1].choices[0].finish_reason == "stop"
    assert asked[-1].choices == []
    assert asked[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in asked[:-1])


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_is_kept_and_said(sandbox: SandboxServer, field: str) -> None:
    limit: dict[str, Any] = {field: 5}
    with client(sandbox) as api:
        answer = api.chat.completions.create(model=MODEL, messages=ASK, n=2, **limit)
    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    assert answer.usage
    assert answer.usage.completion_tokens == 10


def test_a_tool_is_called_and_its_result_told(sandbox: SandboxServer) -> None:
    tools: Any = [{"type": "function", "function": {
        "name": "get_weather", "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    }}]  # fmt: skip
    ask: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    with client(sandbox) as api:
        first = api.chat.completions.create(model=MODEL, messages=ask, tools=tools)
        call = first.choices[0].message.tool_calls
        assert call
        assert call[0].type == "function"
        assert call[0].function.name == "get_weather"
        assert call[0].function.arguments == '{"city": "example", "days": 1}'
        assert first.choices[0].finish_reason == "tool_calls"
        streamed = list(api.chat.completions.create(model=MODEL, messages=ask, tools=tools, stream=True))
        pieces = [one for chunk in streamed for one in chunk.choices[0].delta.tool_calls or []]
        assert "".join((one.function and one.function.arguments) or "" for one in pieces) == call[0].function.arguments
        ask += [first.choices[0].message, {"role": "tool", "tool_call_id": call[0].id, "content": "Sunny, 21 degrees"}]
        second = api.chat.completions.create(model=MODEL, messages=ask, tools=tools)
    assert "Sunny, 21 degrees" in (second.choices[0].message.content or "")


def test_responses_plain_and_streamed(sandbox: SandboxServer) -> None:
    with client(sandbox) as api:
        whole = api.responses.create(model=MODEL, input="How do I water a cactus?")
        events = list(api.responses.create(model=MODEL, input="How do I water a cactus?", stream=True))
        cut = api.responses.create(model=MODEL, input="How do I water a cactus?", max_output_tokens=16)
    assert "cactus" in whole.output_text
    assert whole.usage
    assert whole.usage.output_tokens == tokens.count(whole.output_text)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage == whole.usage
    assert cut.status == "incomplete"


def test_embeddings_in_both_encodings(sandbox: SandboxServer) -> None:
    with client(sandbox) as api:
        answer = api.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
        floats = api.embeddings.create(model="text-embedding-3-small", input="one", encoding_format="float")
    assert len(answer.data[0].embedding) == 1536
    assert answer.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-6)
    assert answer.data[0].embedding != answer.data[1].embedding
    assert answer.usage.prompt_tokens == 2


def test_speech_is_sound(sandbox: SandboxServer) -> None:
    with client(sandbox) as api:
        sound = api.audio.speech.create(model="tts-1", voice="alloy", input="Good morning to you.").read()
    assert sound[:1] == b"\xff"
    assert len(sound) > 5_000


REFUSALS: list[tuple[Outcome, type[openai.APIStatusError], str | None]] = [
    (Outcome.INVALID, openai.AuthenticationError, "invalid_api_key"),
    (Outcome.DEACTIVATED, openai.AuthenticationError, "account_deactivated"),
    (Outcome.WRONG_REGION, openai.AuthenticationError, "incorrect_hostname"),
    (Outcome.RESTRICTED, openai.AuthenticationError, None),
    (Outcome.FIREWALL, openai.AuthenticationError, "ip_not_authorized"),
    (Outcome.WRONG_PROJECT, openai.AuthenticationError, "mismatched_project"),
    (Outcome.UNKNOWN_401, openai.AuthenticationError, "teapot"),
    (Outcome.COUNTRY_BLOCKED, openai.PermissionDeniedError, "unsupported_country_region_territory"),
    (Outcome.RATE_LIMITED, openai.RateLimitError, "rate_limit_exceeded"),
    (Outcome.SLOW_DOWN, openai.InternalServerError, "slow_down"),
    (Outcome.DOWN, openai.InternalServerError, None),
]


@pytest.mark.parametrize(("outcome", "exception", "code"), REFUSALS)
def test_a_refused_check_is_the_sdks_exception(
    sandbox: SandboxServer, outcome: str, exception: type[openai.APIStatusError], code: str | None
) -> None:
    with client(sandbox, outcome) as api, pytest.raises(exception) as refused:
        api.models.list()
    assert refused.value.code == code
    assert refused.value.request_id


@pytest.mark.parametrize(
    ("outcome", "exception", "code"),
    [
        (Outcome.NO_QUOTA, openai.RateLimitError, "insufficient_quota"),
        (Outcome.RESTRICTED_IN_USE, openai.AuthenticationError, None),
        (Outcome.DOWN_IN_USE, openai.InternalServerError, None),
    ],
)
def test_what_only_shows_in_use_passes_the_check(
    sandbox: SandboxServer, outcome: str, exception: type[openai.APIStatusError], code: str | None
) -> None:
    with client(sandbox, outcome) as api:
        assert api.models.list().data
        with pytest.raises(exception) as refused:
            api.chat.completions.create(model=MODEL, messages=ASK)
    assert refused.value.code == code


def test_a_restricted_key_may_chat(sandbox: SandboxServer) -> None:
    with client(sandbox, Outcome.RESTRICTED) as api:
        with pytest.raises(openai.AuthenticationError, match=r"Missing scopes: api\.model\.read"):
            api.models.list()
        assert api.chat.completions.create(model=MODEL, messages=ASK).choices


def test_a_wrong_key_comes_back_masked(sandbox: SandboxServer) -> None:
    pasted = "sk-somebody-elses-key-0123456789"
    api = openai.OpenAI(api_key=pasted, base_url=sandbox.openai_url, max_retries=0)
    with api, pytest.raises(openai.AuthenticationError) as refused:
        api.models.list()
    assert f"sk-someb{'*' * (len(pasted) - 12)}6789" in str(refused.value)
    assert sandbox.calls()[-1]["tag"].startswith("unknown:")


def test_an_echoing_provider_repeats_the_key_in_body_and_headers(sandbox: SandboxServer) -> None:
    text = keys.key(keys.OPENAI, Outcome.ECHOES)
    with client(sandbox, Outcome.ECHOES) as api, pytest.raises(openai.AuthenticationError) as refused:
        api.models.list()
    assert text in str(refused.value)
    assert "".join(f"%{ord(character):02X}" for character in text) in str(refused.value)
    assert refused.value.response.headers["x-debug-authorization"] == f"Bearer {text}"


def test_a_dropped_line_is_a_connection_error(sandbox: SandboxServer) -> None:
    with client(sandbox, Outcome.DROPS) as api, pytest.raises(openai.APIConnectionError):
        api.models.list()
    assert sandbox.calls()[-1]["state"] == "broken"


def test_strangers_pages_and_broken_json_come_with_200(sandbox: SandboxServer) -> None:
    with client(sandbox, Outcome.HTML) as api:
        answer = api.models.with_raw_response.list()
        assert answer.status_code == 200
        assert "GuestNet" in answer.text
    with client(sandbox, Outcome.EMPTY) as api:
        assert api.models.with_raw_response.list().text == "{}"
    with client(sandbox, Outcome.GARBAGE) as api:
        assert api.models.with_raw_response.list().status_code == 200


def test_a_redirect_leads_to_another_host_that_records_arrivals(sandbox: SandboxServer) -> None:
    text = keys.key(keys.OPENAI, Outcome.REDIRECTS)
    with client(sandbox, Outcome.REDIRECTS) as api, pytest.raises(openai.APIStatusError) as refused:
        api.models.list()
    assert refused.value.status_code == 307
    assert sandbox.calls(provider="sink") == []

    careless = openai.OpenAI(api_key=text, base_url=sandbox.openai_url, max_retries=0)
    with careless:
        careless.chat.completions.create(model=MODEL, messages=ASK)
    arrived = sandbox.calls(provider="sink")
    assert [call["method"] for call in arrived] == ["POST"]
    assert arrived[0]["units"] > 0


def test_a_slow_key_answers_late(sandbox: SandboxServer) -> None:
    with client(sandbox, Outcome.SLOW_300MS) as api:
        started = time.monotonic()
        assert api.models.list().data
        assert time.monotonic() - started >= 0.3
    with client(sandbox, Outcome.SLOW, timeout=0.3) as api, pytest.raises(openai.APITimeoutError):
        api.models.list()


def test_a_stream_can_break_be_slow_or_never_begin(sandbox: SandboxServer) -> None:
    sandbox.control(slow_stream_s=0.01)
    heard = []

    def listen(api: openai.OpenAI) -> None:
        for chunk in api.chat.completions.create(model=MODEL, messages=ASK, stream=True):
            heard.append(chunk.choices[0].delta.content or "")

    with client(sandbox, Outcome.BREAKS_MID_STREAM) as api, pytest.raises(openai.APIConnectionError):
        listen(api)
    assert "".join(heard)
    with client(sandbox, Outcome.DIES_BEFORE_FIRST_BYTE) as api, pytest.raises(openai.APIConnectionError):
        list(api.chat.completions.create(model=MODEL, messages=ASK, stream=True))
    with client(sandbox, Outcome.BREAKS_MID_STREAM) as api, pytest.raises(openai.APIConnectionError):
        api.chat.completions.create(model=MODEL, messages=ASK)
    with client(sandbox, Outcome.SLOW_STREAM) as api:
        started = time.monotonic()
        chunks = list(api.chat.completions.create(model=MODEL, messages=ASK, stream=True))
        assert time.monotonic() - started >= 0.009 * (len(chunks) - 1)


def test_an_error_can_come_inside_a_stream(sandbox: SandboxServer) -> None:
    with client(sandbox, Outcome.ERROR_MID_STREAM) as api, pytest.raises(openai.APIError) as refused:
        list(api.chat.completions.create(model=MODEL, messages=ASK, stream=True))
    assert not isinstance(refused.value, openai.APIStatusError)


def test_usage_can_be_missing_or_absurd(sandbox: SandboxServer) -> None:
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    with client(sandbox, Outcome.NO_USAGE) as api:
        assert api.chat.completions.create(model=MODEL, messages=ASK).usage is None
        assert all(chunk.usage is None for chunk in api.chat.completions.create(model=MODEL, messages=ASK, **options))
    with client(sandbox, Outcome.HOSTILE_USAGE) as api:
        usage = api.chat.completions.create(model=MODEL, messages=ASK).usage
        assert usage
        assert usage.prompt_tokens < 0


@pytest.mark.parametrize(
    "body",
    [{}, {"messages": []}, {"messages": [1]}, {"messages": ASK, "n": -1}, {"messages": ASK, "max_tokens": "many"},
     {"messages": ASK, "n": 10**9}],
)  # fmt: skip
def test_a_senseless_request_is_a_400(sandbox: SandboxServer, body: dict[str, Any]) -> None:
    with client(sandbox) as api, pytest.raises(openai.BadRequestError):
        api.post("/chat/completions", body={"model": MODEL, **body}, cast_to=object)


def test_the_journal_tells_whose_key_came_and_that_a_caller_left(sandbox: SandboxServer) -> None:
    sandbox.control(chunk_delay_s=0.05)
    before = sandbox.last_call()
    with client(sandbox, tag="acme") as api:
        stream = api.chat.completions.create(model=MODEL, messages=ASK, stream=True)
        next(iter(stream))
        stream.close()
    deadline = time.monotonic() + 3
    while (call := sandbox.calls(tag="acme", since=before)[-1])["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert call["state"] == "left"
    assert call["provider"] == keys.OPENAI
    assert call["path"] == "/openai/v1/chat/completions"
    assert call["fields"] == ["messages", "model", "stream"]
    assert keys.valid_key(keys.OPENAI, "acme") not in str(sandbox.calls())


def test_many_streams_at_once_each_come_whole(sandbox: SandboxServer) -> None:
    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(
            api_key=keys.valid_key(keys.OPENAI, "crowd"), base_url=sandbox.openai_url, max_retries=0
        ) as api:

            async def one() -> str:
                stream = await api.chat.completions.create(model=MODEL, messages=ASK, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*[one() for _ in range(64)])

    answers = asyncio.run(all_of_them())
    assert len(set(answers)) == 1


def test_a_recording_is_written_down_in_every_format_and_its_seconds_counted(sandbox: SandboxServer) -> None:
    wav = audio.riff_header(32_000, 8_000) + bytes(32_000)
    with client(sandbox) as api:
        plain = api.audio.transcriptions.create(model="whisper-1", file=("a.wav", wav))
        again = api.audio.transcriptions.create(model="gpt-transcribe", file=("b.wav", wav))
        verbose = api.audio.transcriptions.create(
            model="whisper-1", file=("a.wav", wav), response_format="verbose_json"
        )
        srt = api.audio.transcriptions.create(model="whisper-1", file=("a.wav", wav), response_format="srt")
        events = list(api.audio.transcriptions.create(model="gpt-transcribe", file=("a.wav", wav), stream=True))
    assert plain.text == again.text == verbose.text
    assert plain.usage
    assert plain.usage.model_dump() == {"type": "duration", "seconds": 2.0}
    assert verbose.duration == 2
    assert "-->" in str(srt)
    assert (events[0].type, events[-1].type) == ("transcript.text.delta", "transcript.text.done")
    assert sandbox.calls()[-1]["units"] == 2


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"model": "tts-1"}, 400), ({"model": "gpt-0"}, 404), ({"model": "whisper-1", "response_format": "x"}, 400)],
)
def test_a_recording_that_cannot_be_written_down_is_refused(
    sandbox: SandboxServer, fields: dict[str, Any], status: int
) -> None:
    with client(sandbox) as api, pytest.raises(openai.APIStatusError) as refused:
        api.audio.transcriptions.create(file=("a.wav", b"RIFF"), **fields)
    assert refused.value.status_code == status


def test_speech_in_events_ends_with_its_usage(sandbox: SandboxServer) -> None:
    with client(sandbox) as api:
        sound = api.audio.speech.create(
            model="gpt-4o-mini-tts", voice="alloy", input="Hello there", stream_format="sse"
        ).content
        with pytest.raises(openai.BadRequestError):
            api.audio.speech.create(model="tts-1", voice="alloy", input="Hello", stream_format="sse")
    events = [json.loads(event.removeprefix(b"data: ")) for event in sound.split(b"\n\n") if event]
    assert {event["type"] for event in events} == {"speech.audio.delta", "speech.audio.done"}
    assert events[-1]["usage"]["output_tokens"] > 0


def test_probabilities_come_when_asked_for(sandbox: SandboxServer) -> None:
    with client(sandbox) as api:
        answer = api.chat.completions.create(model=MODEL, messages=ASK, logprobs=True, top_logprobs=2)
        chunks = list(api.chat.completions.create(model=MODEL, messages=ASK, logprobs=True, stream=True))
    found = answer.choices[0].logprobs
    assert found
    assert found.content
    assert "".join(each.token for each in found.content) == answer.choices[0].message.content
    assert len(found.content[0].top_logprobs) == 2
    assert any(chunk.choices[0].logprobs for chunk in chunks)


def test_a_streamed_response_can_fail(sandbox: SandboxServer) -> None:
    with client(sandbox, "error_mid_stream") as api:
        events = list(api.responses.create(model=MODEL, input="Hello", stream=True))
    assert events[-1].type == "response.failed"
