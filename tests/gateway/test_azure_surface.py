"""Azure Speech's surface: the free calls, with the native SDK where it makes them, and what characters count."""

from collections.abc import Callable

import azure.cognitiveservices.speech as speech
import httpx
import pytest

from billing.models import Leg
from gateway.errors import Refused
from gateway.upstreams.azure_speech import Speech, read_ssml
from insighto.sandbox import keys
from tests.gateway.conftest import Customer, listed_micros
from tests.gateway.test_funding import error_code, synthesize
from tests.sandbox_server import SandboxServer

MakeCustomer = Callable[..., Customer]


def azure(buyer: Customer, method: str, path: str) -> httpx.Response:
    headers = {"Ocp-Apim-Subscription-Key": buyer.token}
    return httpx.request(method, f"{buyer.url}{path}", headers=headers, timeout=20, trust_env=False)


@pytest.mark.parametrize("funding", ["own", "credits"])
def test_the_native_sdk_lists_the_providers_voices_through_us(
    customer: MakeCustomer, sandbox: SandboxServer, funding: str
) -> None:
    buyer = customer()
    if funding == "own":
        buyer.own("azure_speech")
    listed = []
    for host, key in ((sandbox.url, keys.valid_key("azure_speech", "mine")), (buyer.url, buyer.token)):
        config = speech.SpeechConfig(host=host, subscription=key)
        synthesizer = speech.SpeechSynthesizer(speech_config=config, audio_config=None)
        result = synthesizer.get_voices_async("").get()
        assert result.reason == speech.ResultReason.VoicesListRetrieved, result.error_details
        listed.append([(voice.short_name, voice.locale, voice.gender) for voice in result.voices])
    assert listed[0] == listed[1] != []
    assert not Leg.objects.exists()


def test_the_native_sdk_reads_a_refusal_of_our_key_as_one(customer: MakeCustomer) -> None:
    config = speech.SpeechConfig(host=customer().url, subscription="in-wrong")
    synthesizer = speech.SpeechSynthesizer(speech_config=config, audio_config=None)
    result = synthesizer.get_voices_async("").get()
    assert result.reason == speech.ResultReason.Canceled
    assert "401" in result.error_details


def test_a_token_is_issued_for_the_own_key_and_never_for_the_platforms(
    customer: MakeCustomer, sandbox: SandboxServer
) -> None:
    buyer = customer()
    refused = azure(buyer, "POST", "/sts/v1.0/issueToken")
    asked = len(sandbox.calls())
    buyer.own("azure_speech")
    issued = azure(buyer, "POST", "/sts/v1.0/issueToken")

    assert (refused.status_code, error_code(refused)) == (403, "token_on_credits")
    assert asked == 0
    assert issued.status_code == 200
    assert issued.text.count(".") == 2
    assert issued.headers["cache-control"] == "no-store"
    assert issued.headers["x-insighto-funding"] == "own_key"
    assert [call["tag"] for call in sandbox.calls()] == ["mine"]


@pytest.mark.parametrize("outcome", ["invalid", "no_quota", "rate_limited", "down", "html", "empty", "drops"])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/cognitiveservices/voices/list"), ("POST", "/sts/v1.0/issueToken")]
)
def test_a_free_call_that_fails_says_so(customer: MakeCustomer, method: str, path: str, outcome: str) -> None:
    buyer = customer()
    text = buyer.own("azure_speech", outcome)
    response = azure(buyer, method, path)
    expected = {
        "invalid": (424, "byok_key_invalid"),
        "no_quota": (424, "byok_key_quota_exhausted"),
        "rate_limited": (429, "provider_rate_limited"),
        "html": (502, "provider_bad_answer"),
        "empty": (502, "provider_bad_answer"),
    }.get(outcome, (502, "provider_down"))
    assert (response.status_code, error_code(response)) == expected
    assert text not in response.text + str(response.headers)


def ssml(inner: str) -> str:
    return (
        '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" xmlns:mstts="http://www.w3.org/2001/mstts" '
        f'xml:lang="en-US">{inner}</speak>'
    )


def voiced(text: str, name: str = "en-US-AvaNeural") -> str:
    return f'<voice name="{name}">{text}</voice>'


COUNTS = {
    "letters and spaces": ("Hello,  you!\n", 13),
    "an entity is what it stands for": ("a &amp; b &#x4f60;", len("a & b ") + 2),
    "Chinese counts twice": ("你好", 4),
    "kanji twice, kana once": ("日本のかな々", 2 * 2 + 3 + 2),
    "hanja twice, hangul once": ("漢字한글", 2 * 2 + 2),
    "rare ideographs twice": ("\U00020bb7〇", 4),
    "full-width punctuation once": ("，。！", 3),
    "a code point is one, whatever it needs": ("😀é", 2),
    "markup": ("<break time='1s'/>ok", len("<break time='1s'/>") + 2),
    "both tags of an element": ("<emphasis>so</emphasis>", len("<emphasis></emphasis>") + 2),
    "an element of a prefix": (
        "<mstts:express-as style='sad'>no</mstts:express-as>",
        len("<mstts:express-as style='sad'></mstts:express-as>") + 2,
    ),
    "Chinese in an attribute": ("<sub alias='好'>x</sub>", len("<sub alias=''></sub>") + 2 + 1),
    "a comment is markup": ("a<!-- b -->c", len("<!-- b -->") + 2),
    "a CDATA section": ("<![CDATA[a<b]]>", len("<![CDATA[a<b]]>")),
    "an instruction": ("a<?x y?>b", len("<?x y?>") + 2),
}


@pytest.mark.parametrize("name", COUNTS)
def test_characters_count_as_azure_bills_them(name: str) -> None:
    text, expected = COUNTS[name]
    assert read_ssml(ssml(voiced(text)).encode()).characters == expected


def test_a_second_voice_is_spoken_and_its_tags_are_free(customer: MakeCustomer) -> None:
    buyer = customer()
    response = synthesize(buyer, ssml(voiced("One") + voiced("Two", "en-US-AndrewNeural")))
    assert response.status_code == 200
    leg = buyer.leg()
    assert (leg.voice, leg.input_units) == ("en-US-AvaNeural", 6)
    assert leg.cost_micros == listed_micros(leg)


@pytest.mark.parametrize(
    "name",
    ["", "Ava", "../x", "en-US-AvaNeural'/>", "en-US-Ava Neural", "en-US-" + "A" * 200 + "Neural", "x" * 30],
)
def test_a_foreign_voice_name_is_refused_before_anything_is_sent(
    customer: MakeCustomer, sandbox: SandboxServer, name: str
) -> None:
    for document in (ssml(voiced("One", name)), ssml(voiced("One") + voiced("Two", name))):
        response = synthesize(customer(), document)
        assert (response.status_code, error_code(response)) == (400, "invalid_ssml")
    assert sandbox.calls() == []


UNPRICED = {
    "a personal voice": voiced("<mstts:ttsembedding speakerProfileId='x'>a</mstts:ttsembedding>"),
    "voices of two prices": voiced("a") + voiced("b", "en-US-Ava:DragonHDLatestNeural"),
}


@pytest.mark.parametrize("name", UNPRICED)
def test_on_credits_speech_without_one_known_price_is_refused(
    customer: MakeCustomer, sandbox: SandboxServer, name: str
) -> None:
    response = synthesize(customer(), ssml(UNPRICED[name]))
    assert (response.status_code, error_code(response)) == (400, "unsupported_on_credits")
    assert sandbox.calls() == []


def test_an_hd_voice_has_its_own_price() -> None:
    found = Speech(ssml(voiced("a", "en-US-Ava:DragonHDLatestNeural")).encode(), "raw-16khz-16bit-mono-pcm")
    assert (found.model, found.refuse_on_credits()) == ("hd", None)


def test_too_many_voices_are_refused() -> None:
    with pytest.raises(Refused):
        read_ssml(ssml(voiced("a") * 51).encode())
