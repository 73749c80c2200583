"""OpenAI's sound with its official client: speech, and recordings that go through a file on disk."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.upstreams.openai_audio import LEAST_BYTES_PER_S
from insighto.sandbox import keys
from tests.gateway.conftest import Customer, Web, listed_micros
from tests.gateway.surface import comparable, openai_pair, refusal
from tests.gateway.test_funding import error_code
from tests.gateway.test_surface_faults import hear, post, say, wav
from tests.sandbox_server import SandboxServer

MakeCustomer = Callable[..., Customer]
MEGABYTE = 1024 * 1024


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("form", ["mp3", "wav", "pcm"])
def test_speech_is_the_providers_and_costs_its_characters(
    customer: MakeCustomer, sandbox: SandboxServer, form: Any, funding: str
) -> None:
    buyer = customer()
    before = buyer.micros
    if funding == "own":
        buyer.own("openai")
    with openai_pair(buyer, sandbox) as pair:
        sounds = [
            client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there", response_format=form)
            for client in pair
        ]
    assert sounds[0].content == sounds[1].content != b""
    assert sounds[0].response.headers["content-type"] == sounds[1].response.headers["content-type"]
    leg = buyer.leg()
    assert (leg.kind, leg.voice, leg.input_units) == ("speech", "alloy", len("Hello there"))
    assert before - buyer.micros == leg.cost_micros == (listed_micros(leg) if funding == "credits" else 0)
    assert sounds[1].response.headers["x-insighto-funding"] == ("own_key" if funding == "own" else "platform_credits")


def test_speech_in_events_passes_them_all_and_books_the_tokens(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    buyer.own("openai")
    fields: dict[str, Any] = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Hello", "stream_format": "sse"}
    with openai_pair(buyer, sandbox) as pair:
        streams = [client.audio.speech.create(**fields).content for client in pair]
    assert streams[0] == streams[1]
    assert b"speech.audio.done" in streams[1]
    leg = buyer.leg()
    assert (leg.usage_source, leg.input_units, leg.output_units > 0) == ("provider", 2, True)
    assert leg.estimate_micros is None  # this model has no price here


BAD_SPEECH: list[tuple[dict[str, Any], str]] = [
    ({"input": 7}, "invalid_value"),
    ({"input": "a" * 4097}, "invalid_value"),
    ({"stream_format": "x"}, "invalid_value"),
    ({"instructions": "sing"}, "unsupported_on_credits"),
    ({"model": "gpt-4o-mini-tts"}, "price_unknown"),
    ({"model": "gpt-4o-mini"}, "invalid_value"),
]


@pytest.mark.parametrize(("fields", "code"), BAD_SPEECH, ids=range(len(BAD_SPEECH)))
def test_speech_that_cannot_be_sold_is_refused(
    customer: MakeCustomer, sandbox: SandboxServer, fields: dict[str, Any], code: str
) -> None:
    response = say(customer(), **fields)
    assert (response.status_code, error_code(response)) == (400, code)
    assert sandbox.calls() == []


HEARD: dict[str, dict[str, Any]] = {
    "json": {},
    "verbose": {"response_format": "verbose_json", "language": "de", "temperature": 0.5},
    "text": {"response_format": "text"},
    "srt": {"response_format": "srt"},
    "granular": {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]},
}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's word on its own translations
@pytest.mark.parametrize("action", ["transcriptions", "translations"])
@pytest.mark.parametrize("name", HEARD)
def test_on_the_own_key_a_transcript_is_the_providers(
    customer: MakeCustomer, sandbox: SandboxServer, name: str, action: str
) -> None:
    fields = {key: value for key, value in HEARD[name].items() if action == "transcriptions" or key != "language"}
    if action == "translations":
        fields.pop("timestamp_granularities", None)
    buyer = customer(credits=0)
    buyer.own("openai")
    sound = ("speech.wav", wav(3), "audio/wav")
    with openai_pair(buyer, sandbox) as pair:
        heard = [getattr(client.audio, action).create(model="whisper-1", file=sound, **fields) for client in pair]
    assert comparable(heard[0]) == comparable(heard[1])
    direct, through = sandbox.calls()
    assert (direct["fields"], direct["body_sha256"]) == (through["fields"], through["body_sha256"])
    leg = buyer.leg()
    assert (leg.kind, leg.input_units, leg.cost_micros) == ("transcription", 3, 0)
    assert leg.estimate_micros == listed_micros(leg)


@pytest.mark.parametrize("model", ["whisper-1", "gpt-transcribe"])
@pytest.mark.parametrize("streamed", [True, False])
def test_on_credits_a_transcript_costs_its_seconds(
    customer: MakeCustomer, sandbox: SandboxServer, model: str, streamed: bool
) -> None:
    buyer = customer()
    before = buyer.micros
    sound = ("speech.wav", wav(5), "audio/wav")
    with openai_pair(buyer, sandbox) as pair:
        heard: list[Any] = []
        for client in pair:
            if streamed and model != "whisper-1":
                heard.append(list(client.audio.transcriptions.create(model=model, file=sound, stream=True)))
            else:
                heard.append(client.audio.transcriptions.create(model=model, file=sound))
    assert comparable(heard[0]) == comparable(heard[1])
    leg = buyer.leg()
    assert (leg.input_units, leg.usage_source) == (5, "provider")
    assert before - buyer.micros == leg.cost_micros == listed_micros(leg) > 0
    assert sandbox.calls()[-1]["body_sha256"] == hashlib.sha256(wav(5)).hexdigest()


def test_a_stream_asked_of_a_model_that_has_none_is_answered_whole(customer: MakeCustomer) -> None:
    response = hear(customer(), stream="true")
    assert response.status_code == 200
    assert response.json()["usage"] == {"type": "duration", "seconds": 2}


@pytest.mark.parametrize("outcome", ["no_usage", "hostile_usage"])
@pytest.mark.parametrize("sound", [wav(4), b"ID3" + bytes(64_000)], ids=["wav", "mp3"])
def test_seconds_nobody_said_are_counted(
    customer: MakeCustomer, sandbox: SandboxServer, outcome: str, sound: bytes
) -> None:
    buyer = customer()
    sandbox.control(key=keys.valid_key("openai", "platform"), outcome=outcome)
    response = hear(buyer, sound)
    leg = buyer.leg(response)
    assert response.status_code == 200
    assert (leg.input_units, leg.usage_source, leg.is_flagged) == (4, "counted", outcome == "hostile_usage")


def test_the_hold_covers_the_longest_recording_of_that_size(customer: MakeCustomer) -> None:
    sound = b"ID3" + bytes(LEAST_BYTES_PER_S * 1_000)  # 1,001 seconds at most, at 0.01 credits each
    assert hear(customer(credits=10), sound).status_code == 402
    assert hear(customer(credits=11), sound).status_code == 200


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"chunking_strategy": "auto"}, "chunking_strategy"),
        ({"response_format": "text"}, "response_format: text"),
        ({"response_format": "srt"}, "response_format: srt"),
        ({"known_speaker_names[]": "x"}, "known_speaker_names[]"),
    ],
)
def test_a_field_of_unknown_price_is_refused_by_name_on_credits(
    customer: MakeCustomer, sandbox: SandboxServer, fields: dict[str, str], named: str
) -> None:
    response = hear(customer(), wav(1), **fields)
    assert (response.status_code, error_code(response)) == (400, "unsupported_on_credits")
    assert named in response.json()["error"]["message"]
    assert sandbox.calls() == []


def test_the_same_failure_raises_the_same_exception(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    buyer.own("openai")
    raised = []
    with openai_pair(buyer, sandbox) as pair:
        for client in pair:
            with pytest.raises(openai.BadRequestError) as caught:
                client.audio.transcriptions.create(model="tts-1", file=("a.wav", wav(1)))
            raised.append(refusal(caught.value))
    assert raised[0] == raised[1]


def form(*parts: bytes, boundary: bytes = b"xyz", end: bytes = b"--xyz--\r\n") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + end


MODEL = b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + wav(1)
BAD_FORMS: dict[str, bytes] = {
    "nothing": b"",
    "not a form": b"hello",
    "no end": form(MODEL, FILE, end=b""),
    "something after the end": form(MODEL, FILE) + b"x",
    "something before": b"x" + form(MODEL, FILE),
    "no model": form(FILE),
    "no file": form(MODEL),
    "two files": form(MODEL, FILE, FILE),
    "two models": form(MODEL, MODEL, FILE),
    "another file": form(MODEL, FILE.replace(b'"file"', b'"mask"')),
    "an encoding": form(MODEL, b"Content-Transfer-Encoding: base64\r\n" + FILE),
    "two names": form(MODEL, b'Content-Disposition: form-data; name="x"\r\n' + FILE),
    "no name": form(b"Content-Disposition: form-data\r\n\r\na", FILE),
    "a name with a line": form(MODEL.replace(b'"model"', b'"mo\r\ndel"'), FILE),
    "not UTF-8": form(MODEL.replace(b"whisper-1", b"\xff\xfe"), FILE),
    "an endless head": form(b"Content-Type: " + b"a" * 10_000 + b"\r\n" + FILE, MODEL),
    "a hundred parts": form(*[MODEL.replace(b'"model"', b'"include[]"')] * 100, MODEL, FILE),
    "a huge field": form(MODEL, MODEL.replace(b'"model"\r\n\r\n', b'"prompt"\r\n\r\n' + b"a" * 70_000), FILE),
}


@pytest.mark.parametrize("funding", ["own", "credits"])
@pytest.mark.parametrize("name", BAD_FORMS)
def test_a_form_that_can_be_read_in_two_ways_is_refused(
    customer: MakeCustomer, sandbox: SandboxServer, name: str, funding: str
) -> None:
    buyer = customer()
    if funding == "own":
        buyer.own("openai")
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    response = post(buyer, "/v1/audio/transcriptions", content=BAD_FORMS[name], headers=headers)
    assert response.status_code in (400, 413), response.text
    assert error_code(response)
    assert sandbox.calls() == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "multipart/form-data", "multipart/form-data; boundary=a b"]
)
def test_a_form_needs_its_content_type(customer: MakeCustomer, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    response = post(customer(), "/v1/audio/transcriptions", content=form(MODEL, FILE), headers=headers)
    assert response.status_code == 415


def test_a_field_after_the_file_and_a_hostile_file_name_are_judged_and_written_anew(
    customer: MakeCustomer, sandbox: SandboxServer
) -> None:
    buyer = customer()
    named = FILE.replace(b'filename="a.wav"', b'filename="../../\xc3\xa9 x;.wav"')
    headers = {"Content-Type": 'multipart/form-data; boundary="xyz"'}
    response = post(buyer, "/v1/audio/transcriptions", content=form(named, MODEL), headers=headers)
    assert response.status_code == 200, response.text
    assert buyer.leg(response).input_units == 1
    assert sandbox.calls()[-1]["body_sha256"] == hashlib.sha256(wav(1)).hexdigest()


def test_an_upload_has_a_bound_also_without_a_length(customer: MakeCustomer, sandbox: SandboxServer) -> None:
    buyer = customer()
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}

    def endless() -> Iterator[bytes]:
        for _ in range(27):
            yield bytes(MEGABYTE)

    known = post(buyer, "/v1/audio/transcriptions", content=bytes(27 * MEGABYTE), headers=headers)
    with buyer.client() as client:
        unknown = client.post("/v1/audio/transcriptions", content=endless(), headers=headers)
    assert known.status_code == unknown.status_code == 413
    assert sandbox.calls() == []


def test_a_stranger_uploads_nothing(web: Web) -> None:
    response = httpx.post(
        f"{web.url}/v1/audio/transcriptions",
        headers={"Authorization": "Bearer in-wrong"},
        files={"file": b"a"},
        trust_env=False,
    )
    assert response.status_code == 401


def test_large_uploads_leave_the_memory_flat(customer: MakeCustomer, web: Web) -> None:
    buyer = customer(credits=1_000)
    hear(buyer, b"ID3" + bytes(MEGABYTE))
    before = resident_megabytes(web)
    for _ in range(6):
        assert hear(buyer, b"ID3" + bytes(20 * MEGABYTE)).status_code == 200
    assert resident_megabytes(web) - before < 15


def resident_megabytes(web: Web) -> int:
    assert web.child is not None
    status = Path(f"/proc/{web.child.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) // 1024
