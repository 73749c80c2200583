import base64
import json
import ssl
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError

from insighto.sandbox import elevenlabs as served
from insighto.sandbox import keys, mp3
from insighto.sandbox.keys import Outcome
from tests.sandbox_server import SandboxServer

VOICE = served.VOICES[0][0]
OPTIONS: Any = {"max_retries": 0, "timeout_in_seconds": 10}


_open: list[httpx.Client] = []


@pytest.fixture(autouse=True)
def close_clients() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def client(sandbox: SandboxServer, outcome: str = "valid", tag: str = "") -> ElevenLabs:
    _open.append(httpx.Client(follow_redirects=False, trust_env=False, verify=ssl.create_default_context(), timeout=10))
    return ElevenLabs(
        api_key=keys.key(keys.ELEVENLABS, outcome, tag or ("one" if outcome == "valid" else "")),
        base_url=sandbox.elevenlabs_url,
        httpx_client=_open[-1],
    )


def name_in(refused: ApiError) -> str:
    detail = refused.body["detail"]
    return str(detail.get("code") or detail["status"])


def frames_of(sound: bytes) -> int:
    return len(mp3.split(sound))


def test_subscription_models_and_voices(sandbox: SandboxServer) -> None:
    api = client(sandbox)
    subscription = api.user.subscription.get(request_options=OPTIONS)
    assert (subscription.tier, subscription.character_limit) == ("creator", 100_000)
    assert subscription.character_count < subscription.character_limit
    assert {model.model_id for model in api.models.list(request_options=OPTIONS)} == set(served.MODELS)
    found = api.voices.search(request_options=OPTIONS)
    assert [voice.voice_id for voice in found.voices] == [voice[0] for voice in served.VOICES]
    assert all(len(voice.voice_id) == 20 and voice.voice_id.isalnum() for voice in found.voices)
    assert len(api.voices.get_all(request_options=OPTIONS).voices) == len(found.voices)


@pytest.mark.parametrize(("model", "cost"), [("eleven_multilingual_v2", "9"), ("eleven_flash_v2_5", "5")])
def test_speech_says_what_it_cost(sandbox: SandboxServer, model: str, cost: str) -> None:
    with client(sandbox).text_to_speech.with_raw_response.convert(
        VOICE, text="Good day.", model_id=model, request_options=OPTIONS
    ) as answer:
        sound = b"".join(answer.data)
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.headers["character-cost"] == cost
    assert answer.headers["request-id"]
    assert answer.headers["history-item-id"]
    assert answer.headers["maximum-concurrent-requests"] == "10"
    assert frames_of(sound) == round(len(sound) * 8 * 44_100 / 1_152 / 128_000)


def test_the_stream_is_the_same_sound_in_pieces(sandbox: SandboxServer) -> None:
    api = client(sandbox)
    whole = b"".join(api.text_to_speech.convert(VOICE, text="One, two, three.", request_options=OPTIONS))
    pieces = list(api.text_to_speech.stream(VOICE, text="One, two, three.", request_options=OPTIONS))
    assert b"".join(pieces) == whole
    assert sandbox.calls()[-1]["streamed"]


def test_each_voice_sounds_different_and_longer_texts_take_longer(sandbox: SandboxServer) -> None:
    api = client(sandbox)

    def say(voice: str, text: str) -> bytes:
        return b"".join(
            api.text_to_speech.convert(voice, text=text, output_format="pcm_16000", request_options=OPTIONS)
        )

    assert len({say(voice[0], "Good day.") for voice in served.VOICES}) == len(served.VOICES)
    assert len(say(VOICE, "Good day. " * 10)) > 8 * len(say(VOICE, "Good day."))


@pytest.mark.parametrize(
    "form", ["mp3_22050_32", "mp3_24000_48", "mp3_44100_64", "mp3_44100_192", "pcm_24000", "wav_44100", "ulaw_8000"]
)
def test_formats_are_what_they_say(sandbox: SandboxServer, form: Any) -> None:
    sound = b"".join(
        client(sandbox).text_to_speech.convert(VOICE, text="Good day.", output_format=form, request_options=OPTIONS)
    )
    container, rate, *_ = form.split("_")
    if container == "mp3":
        assert frames_of(sound) > 10
    elif container == "wav":
        assert sound[:4] == b"RIFF"
        assert struct.unpack("<I", sound[24:28]) == (int(rate),)
        assert struct.unpack("<I", sound[40:44]) == (len(sound) - 44,)
    else:
        assert len(set(sound)) > 50


@pytest.mark.parametrize(
    ("outcome", "status", "name"),
    [
        (Outcome.INVALID, 401, "invalid_api_key"),
        (Outcome.RESTRICTED, 401, "missing_permissions"),
        (Outcome.RESTRICTED_PARTLY, 401, "missing_permissions"),
        (Outcome.UNUSUAL_ACTIVITY, 401, "detected_unusual_activity"),
        (Outcome.RATE_LIMITED, 429, "too_many_concurrent_requests"),
        (Outcome.SLOW_DOWN, 429, "system_busy"),
        (Outcome.UNKNOWN_401, 401, "teapot"),
        (Outcome.DOWN, 500, "internal_server_error"),
    ],
)
def test_a_refused_check(sandbox: SandboxServer, outcome: str, status: int, name: str) -> None:
    with pytest.raises(ApiError) as refused:
        client(sandbox, outcome).user.subscription.get(request_options=OPTIONS)
    assert (refused.value.status_code, name_in(refused.value)) == (status, name)


@pytest.mark.parametrize(
    ("outcome", "status", "name"),
    [
        (Outcome.NO_QUOTA, 401, "quota_exceeded"),
        (Outcome.NO_QUOTA_IN_USE, 401, "quota_exceeded"),
        (Outcome.PLAN_TOO_LOW, 402, "paid_plan_required"),
        (Outcome.RESTRICTED_IN_USE, 401, "missing_permissions"),
        (Outcome.DOWN_IN_USE, 503, "service_unavailable"),
    ],
)
def test_what_shows_in_use(sandbox: SandboxServer, outcome: str, status: int, name: str) -> None:
    api = client(sandbox, outcome)
    assert api.user.subscription.get(request_options=OPTIONS).tier
    with pytest.raises(ApiError) as refused:
        list(api.text_to_speech.convert(VOICE, text="Good day.", request_options=OPTIONS))
    assert (refused.value.status_code, name_in(refused.value)) == (status, name)


def test_exhausted_and_disabled_accounts_show_in_the_subscription(sandbox: SandboxServer) -> None:
    used_up = client(sandbox, Outcome.NO_QUOTA).user.subscription.get(request_options=OPTIONS)
    assert used_up.character_count >= used_up.character_limit
    assert not used_up.can_extend_character_limit
    assert client(sandbox, Outcome.FREE_DISABLED).user.subscription.get(request_options=OPTIONS).status == (
        "free_disabled"
    )


def test_a_partly_restricted_key_may_read_the_rest_and_a_restricted_one_may_speak(sandbox: SandboxServer) -> None:
    assert client(sandbox, Outcome.RESTRICTED_PARTLY).models.list(request_options=OPTIONS)
    api = client(sandbox, Outcome.RESTRICTED)
    for call in (api.models.list, api.voices.search):
        with pytest.raises(ApiError) as refused:
            call(request_options=OPTIONS)
        assert name_in(refused.value) == "missing_permissions"
    assert b"".join(api.text_to_speech.convert(VOICE, text="Good day.", request_options=OPTIONS))


def test_a_redirect_that_is_not_followed_takes_nothing_along_and_a_careless_client_takes_the_key(
    sandbox: SandboxServer,
) -> None:
    with pytest.raises(ApiError):
        client(sandbox, Outcome.REDIRECTS).user.subscription.get(request_options=OPTIONS)
    assert sandbox.calls(provider="sink") == []

    with httpx.Client(trust_env=False, follow_redirects=True) as careless:
        careless.get(
            f"{sandbox.elevenlabs_url}/v1/user/subscription",
            headers={"xi-api-key": keys.key(keys.ELEVENLABS, Outcome.REDIRECTS)},
        )
    assert [call["tag"] for call in sandbox.calls(provider="sink")] == ["redirects"]


@pytest.mark.parametrize("outcome", [Outcome.DROPS, Outcome.BREAKS_MID_STREAM, Outcome.DIES_BEFORE_FIRST_BYTE])
def test_broken_lines_are_transport_errors(sandbox: SandboxServer, outcome: str) -> None:
    api = client(sandbox, outcome)
    with pytest.raises(httpx.TransportError):
        list(api.text_to_speech.stream(VOICE, text="One two three four five six.", request_options=OPTIONS))


def test_an_echoing_provider_repeats_the_key(sandbox: SandboxServer) -> None:
    text = keys.key(keys.ELEVENLABS, Outcome.ECHOES)
    with pytest.raises(ApiError) as refused:
        client(sandbox, Outcome.ECHOES).user.subscription.get(request_options=OPTIONS)
    assert text in json.dumps(refused.value.body)
    assert text in str(refused.value.headers)


@pytest.mark.parametrize(
    ("voice", "change", "status"),
    [
        ("A" * 20, {}, 404),
        (VOICE, {"text": "x" * 10_001}, 400),
        (VOICE, {"text": ""}, 400),
        (VOICE, {"text": 5}, 422),
        (VOICE, {"model_id": "eleven_nothing"}, 400),
    ],
)
def test_a_senseless_request_says_nothing_about_the_key(
    sandbox: SandboxServer, voice: str, change: dict[str, Any], status: int
) -> None:
    answer = httpx.post(
        f"{sandbox.elevenlabs_url}/v1/text-to-speech/{voice}",
        headers={"xi-api-key": keys.valid_key(keys.ELEVENLABS, "one")},
        json={"text": "Good day.", **change},
        trust_env=False,
    )
    assert answer.status_code == status


def test_timestamps_come_with_the_sound_whole_and_in_lines(sandbox: SandboxServer) -> None:
    speech = client(sandbox).text_to_speech
    whole = speech.convert_with_timestamps(VOICE, text="Hello there", request_options=OPTIONS)
    lines = list(speech.stream_with_timestamps(VOICE, text="Hello there", request_options=OPTIONS))
    plain = b"".join(speech.convert(VOICE, text="Hello there", request_options=OPTIONS))
    assert base64.b64decode(whole.audio_base_64) == plain
    assert b"".join(base64.b64decode(line.audio_base_64) for line in lines) == plain
    assert whole.alignment
    assert "".join(whole.alignment.characters) == "Hello there"
    assert len(lines) > 1
    starts = [time for line in lines if line.alignment for time in line.alignment.character_start_times_seconds]
    assert starts == sorted(starts) == whole.alignment.character_start_times_seconds
