import struct
from typing import Any

import azure.cognitiveservices.speech as speech
import httpx
import pytest

from insighto.sandbox import azure_speech as served
from insighto.sandbox import keys, mp3
from insighto.sandbox.keys import Outcome
from tests.sandbox_server import SandboxServer

SSML = (
    '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en-US">'
    '<voice name="{voice}">Hello &amp; welcome</voice></speak>'
)


def ask(
    sandbox: SandboxServer, method: str, path: str, *, text: str, region: str = "westeurope", **options: Any
) -> httpx.Response:
    headers = {"Ocp-Apim-Subscription-Key": text, **options.pop("headers", {})}
    address = sandbox.azure_url.format(region=region) if region else sandbox.url
    return httpx.request(method, address + path, headers=headers, trust_env=False, timeout=10, **options)


def say(
    sandbox: SandboxServer,
    *,
    text: str,
    voice: str = "en-US-AvaNeural",
    form: str = "audio-24khz-48kbitrate-mono-mp3",
    **options: Any,
) -> httpx.Response:
    headers = {"X-Microsoft-OutputFormat": form, "Content-Type": "application/ssml+xml", "User-Agent": "insighto",
               **options.pop("headers", {})}  # fmt: skip
    body = options.pop("body", SSML.format(voice=voice))
    return ask(sandbox, "POST", "/cognitiveservices/v1", text=text, content=body, headers=headers, **options)


# Keep what this returns in a variable until its result is there: collected while waiting, it now and then misses
# the answer and takes 40 seconds to try again.
def synthesizer(sandbox: SandboxServer, text: str, *, voice: str = "en-US-AvaNeural", mp3_wanted: bool = False) -> Any:
    config = speech.SpeechConfig(host=sandbox.url, subscription=text)
    config.speech_synthesis_voice_name = voice
    if mp3_wanted:
        config.set_speech_synthesis_output_format(speech.SpeechSynthesisOutputFormat.Audio24Khz48KBitRateMonoMp3)
    return speech.SpeechSynthesizer(speech_config=config, audio_config=None)


def test_the_native_sdk_lists_voices(sandbox: SandboxServer) -> None:
    speaker = synthesizer(sandbox, keys.valid_key(keys.AZURE, "one"))
    found = speaker.get_voices_async().get()
    assert found.reason == speech.ResultReason.VoicesListRetrieved
    assert {voice.short_name for voice in found.voices} == set(served.PITCH)
    assert sandbox.calls()[-1]["tag"] == "one"


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome.INVALID, "Authentication error (401)"),
        (Outcome.FIREWALL, "Authentication error (403)"),
        (Outcome.RATE_LIMITED, "Too many requests (429)"),
        (Outcome.DOWN, "Internal service error (500)"),
    ],
)
def test_the_native_sdk_understands_the_refusals(sandbox: SandboxServer, outcome: str, said: str) -> None:
    speaker = synthesizer(sandbox, keys.key(keys.AZURE, outcome))
    found = speaker.get_voices_async().get()
    assert found.reason == speech.ResultReason.Canceled
    assert said in found.error_details


def test_the_native_sdk_speaks_over_its_websocket(sandbox: SandboxServer) -> None:
    text = keys.valid_key(keys.AZURE, "one")
    voice = synthesizer(sandbox, text)
    first, second = (voice.speak_text_async(words).get() for words in ("Hello & welcome.", "And once more."))
    assert first.reason == second.reason == speech.ResultReason.SynthesizingAudioCompleted
    assert first.audio_data[:4] == b"RIFF"
    assert len(set(first.audio_data)) > 50
    in_mp3 = synthesizer(sandbox, text, mp3_wanted=True)
    assert len(mp3.split(in_mp3.speak_text_async("Hello & welcome.").get().audio_data)) > 10
    assert [call["units"] for call in sandbox.calls(tag="one")] == [16, 14, 16]


@pytest.mark.parametrize("language", ["en-US", "de-DE"])
def test_the_native_sdks_own_default_voice_is_known(sandbox: SandboxServer, language: str) -> None:
    config = speech.SpeechConfig(host=sandbox.url, subscription=keys.valid_key(keys.AZURE, "one"))
    config.speech_synthesis_language = language
    voice = speech.SpeechSynthesizer(speech_config=config, audio_config=None)
    assert voice.speak_text_async("Hello").get().reason == speech.ResultReason.SynthesizingAudioCompleted


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome.INVALID, "Authentication error (401)"),
        (Outcome.NO_QUOTA_IN_USE, "Authentication error (403)"),
        (Outcome.RATE_LIMITED, "Too many requests (429)"),
    ],
)
def test_the_websocket_refuses_like_azure(sandbox: SandboxServer, outcome: str, said: str) -> None:
    speaker = synthesizer(sandbox, keys.key(keys.AZURE, outcome))
    spoken = speaker.speak_text_async("Hello").get()
    assert spoken.reason == speech.ResultReason.Canceled
    assert said in spoken.cancellation_details.error_details


def test_an_unknown_voice_closes_the_websocket_with_1007(sandbox: SandboxServer) -> None:
    text = keys.valid_key(keys.AZURE, "one")
    speaker = synthesizer(sandbox, text, voice="en-US-NobodyNeural")
    spoken = speaker.speak_text_async("Hello").get()
    assert "Error code: 1007" in spoken.cancellation_details.error_details


def test_a_websocket_that_breaks_is_noted(sandbox: SandboxServer) -> None:
    voice = synthesizer(sandbox, keys.key(keys.AZURE, Outcome.BREAKS_MID_STREAM))
    spoken = voice.speak_text_async("One two three four five six seven.").get()
    assert spoken.reason == speech.ResultReason.Canceled
    assert sandbox.calls()[-1]["state"] == "broken"


def test_voices_over_http_need_the_key_of_the_region(sandbox: SandboxServer) -> None:
    text = keys.valid_key(keys.AZURE, "one")
    path = "/cognitiveservices/voices/list"
    assert {voice["ShortName"] for voice in ask(sandbox, "GET", path, text=text).json()} == set(served.PITCH)
    assert ask(sandbox, "GET", path, text=text, region="").status_code == 200
    elsewhere = ask(sandbox, "GET", path, text=text, region="northeurope")
    assert elsewhere.status_code == 401
    assert elsewhere.json()["error"]["code"] == "401"
    assert ask(sandbox, "GET", path, text=text, region="nowhere").status_code == 404

    wrong = keys.key(keys.AZURE, Outcome.WRONG_REGION)
    assert ask(sandbox, "GET", path, text=wrong).status_code == 401
    assert ask(sandbox, "GET", path, text=wrong, region="northeurope").status_code == 200


@pytest.mark.parametrize(
    "form",
    [
        "audio-16khz-32kbitrate-mono-mp3",
        "audio-24khz-96kbitrate-mono-mp3",
        "audio-48khz-192kbitrate-mono-mp3",
        "riff-24khz-16bit-mono-pcm",
        "raw-16khz-16bit-mono-pcm",
        "raw-8khz-8bit-mono-mulaw",
    ],
)
def test_synthesis_over_http_in_the_format_asked_for(sandbox: SandboxServer, form: str) -> None:
    answer = say(sandbox, text=keys.valid_key(keys.AZURE, "one"), form=form)
    assert answer.status_code == 200
    if form.endswith("mp3"):
        assert answer.headers["content-type"] == "audio/mpeg"
        assert len(mp3.split(answer.content)) > 10
    elif form.startswith("riff"):
        assert struct.unpack("<I", answer.content[40:44]) == (len(answer.content) - 44,)
    else:
        assert len(set(answer.content)) > 50
    assert sandbox.calls()[-1]["units"] == len("Hello & welcome")


def test_two_voices_sound_different(sandbox: SandboxServer) -> None:
    text = keys.valid_key(keys.AZURE, "one")
    sounds = {
        say(sandbox, text=text, voice=f"en-US-{name}Neural").content for name in ("Ava", "Andrew", "Emma", "Brian")
    }
    assert len(sounds) == 4


def test_a_token_stands_for_its_key(sandbox: SandboxServer) -> None:
    token = ask(sandbox, "POST", "/sts/v1.0/issueToken", text=keys.valid_key(keys.AZURE, "one"))
    assert token.status_code == 200
    assert token.text.count(".") == 2
    answer = httpx.get(
        sandbox.azure_url.format(region="westeurope") + "/cognitiveservices/voices/list",
        headers={"Authorization": f"Bearer {token.text}"},
        trust_env=False,
    )
    assert answer.status_code == 200
    assert sandbox.calls()[-1]["tag"] == "one"
    assert ask(sandbox, "POST", "/sts/v1.0/issueToken", text="0" * 32).status_code == 401


@pytest.mark.parametrize(
    ("outcome", "status", "word"),
    [
        (Outcome.INVALID, 401, "invalid subscription key or wrong API endpoint"),
        (Outcome.NO_QUOTA, 403, "call volume quota"),
        (Outcome.FIREWALL, 403, "Virtual Network/Firewall"),
        (Outcome.RESTRICTED, 403, "AuthenticationTypeDisabled"),
        (Outcome.RATE_LIMITED, 429, "rate limit"),
        (Outcome.DOWN, 500, "Internal Server Error"),
        (Outcome.UNKNOWN_401, 401, "not right"),
        (Outcome.HTML, 200, "GuestNet"),
        (Outcome.EMPTY, 200, "{}"),
        (Outcome.REDIRECTS, 307, ""),
    ],
)
def test_refusals_over_http(sandbox: SandboxServer, outcome: str, status: int, word: str) -> None:
    answer = ask(sandbox, "GET", "/cognitiveservices/voices/list", text=keys.key(keys.AZURE, outcome))
    assert answer.status_code == status
    assert word in answer.text


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Outcome.NO_QUOTA_IN_USE, 403), (Outcome.RESTRICTED_IN_USE, 403), (Outcome.DOWN_IN_USE, 503)],
)
def test_what_shows_in_use(sandbox: SandboxServer, outcome: str, status: int) -> None:
    text = keys.key(keys.AZURE, outcome)
    assert ask(sandbox, "GET", "/cognitiveservices/voices/list", text=text).status_code == 200
    assert say(sandbox, text=text).status_code == status


@pytest.mark.parametrize("outcome", [Outcome.DROPS, Outcome.BREAKS_MID_STREAM, Outcome.DIES_BEFORE_FIRST_BYTE])
def test_broken_lines(sandbox: SandboxServer, outcome: str) -> None:
    with pytest.raises(httpx.TransportError):
        say(sandbox, text=keys.key(keys.AZURE, outcome))


@pytest.mark.parametrize(
    "body",
    [
        "not xml",
        "<speak/>",
        SSML.format(voice="en-US-NobodyNeural"),
        '<!DOCTYPE a [<!ENTITY b "c">]><speak>&b;</speak>',
        "<speak>" + "x" * 70_000 + "</speak>",
    ],
)
def test_bad_ssml_is_a_400(sandbox: SandboxServer, body: str) -> None:
    assert say(sandbox, text=keys.valid_key(keys.AZURE, "one"), body=body).status_code == 400


def test_wrong_headers_are_refused(sandbox: SandboxServer) -> None:
    text = keys.valid_key(keys.AZURE, "one")
    assert say(sandbox, text=text, form="audio-of-my-own").status_code == 400
    assert say(sandbox, text=text, headers={"Content-Type": "text/plain"}).status_code == 415


def test_chinese_characters_count_twice() -> None:
    assert served.billable_characters("你好, ok") == 8
    assert served.billable_characters("カタカナ") == 4
