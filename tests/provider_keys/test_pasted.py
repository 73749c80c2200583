import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_keys import destinations, pasted
from provider_keys.errors import KeyIsExample, KeyMalformed, NameRefused, RegionRefused
from provider_keys.models import Provider
from tests.provider_keys.conftest import AZURE_KEY, ELEVENLABS_KEY, KEYS, OPENAI_KEY


@pytest.mark.parametrize(
    "around",
    ["{}", "  {}\n", "\ufeff{}", "\u200b{}\u200b", '"{}"', "'{}'", "“{}”", "\t'{}' \r\n", "\u2060 {} \u00ad", "`{}`"],
)
def test_what_copying_adds_around_a_key_is_taken_off(around: str) -> None:
    assert pasted.key(around.format(OPENAI_KEY)) == OPENAI_KEY


@pytest.mark.parametrize(
    "typed",
    [
        "sk-proj\nabcdefg",
        "sk-proj abcdefg",
        "sk-proj\x00abcdefg",
        "sk-pröj-abcdefg",
        "sk-proj\u200babcdefg",
        "abc1234",
        "sk-" + "abcdefgh" * 40,
        "sk-proj-abcdefg\r\nX-Evil: 1",
    ],
)
def test_what_no_provider_issues_is_refused_without_repeating_it(typed: str) -> None:
    with pytest.raises(KeyMalformed) as refusal:
        pasted.key(typed)
    assert refusal.value.field == "key"
    assert typed[:8] not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(
    "typed",
    [
        *("", "   ", "dummy", "DUMMY ", "none", "null", "todo", "Test", "changeme", "aaaaaaaaaaaa", "abababababab"),
        *("YOUR_API_KEY", "your-openai-key", "<your key>", "<api-key-1234>", "${OPENAI_API_KEY}", "{{ secret-value }}"),
        *("paste-your-token-here", "sk-proj-abcdef...", "sk-abcdefgxxxx", "sk-…xxxx", '"dummy"'),
    ],
)
def test_an_example_is_not_taken_for_a_key(typed: str) -> None:
    with pytest.raises(KeyIsExample):
        pasted.key(typed)


@pytest.mark.parametrize("typed", ["dummy", " Dummy ", "DUMMY\n", "I don't use ElevenLabs", "i don’t use elevenlabs."])
def test_only_an_optional_provider_can_be_declared_unused(typed: str) -> None:
    assert pasted.says_not_used(Provider.ELEVENLABS, typed)
    assert not pasted.says_not_used(Provider.OPENAI, typed)
    assert not pasted.says_not_used(Provider.AZURE_SPEECH, typed)


@given(st.text(max_size=300))
def test_a_key_that_is_taken_is_printable_ascii_of_a_sane_length(typed: str) -> None:
    try:
        key = pasted.key(typed)
    except (KeyIsExample, KeyMalformed):
        return
    assert 8 <= len(key) <= 256
    assert all("!" <= char <= "~" for char in key)
    assert pasted.cleaned(key) == key


@pytest.mark.parametrize("provider", Provider.values)
def test_keys_of_the_known_shapes_raise_no_eyebrow(provider: str) -> None:
    assert pasted.hints(provider, KEYS[provider]) == []


@pytest.mark.parametrize(
    ("provider", "key", "says"),
    [
        (Provider.OPENAI, "sk-ant-" + "a1b2c3d4" * 8, "Anthropic"),
        (Provider.OPENAI, ELEVENLABS_KEY, "ElevenLabs"),
        (Provider.OPENAI, "sk-admin-" + "a1b2c3d4" * 8, "admin key"),
        (Provider.OPENAI, AZURE_KEY, "begin with sk-"),
        (Provider.AZURE_SPEECH, OPENAI_KEY, "OpenAI"),
        (Provider.AZURE_SPEECH, ELEVENLABS_KEY, "ElevenLabs"),
        (Provider.AZURE_SPEECH, AZURE_KEY[:60], "cut"),
        (Provider.ELEVENLABS, OPENAI_KEY, "OpenAI"),
        (Provider.ELEVENLABS, AZURE_KEY, "Azure"),
        (Provider.ELEVENLABS, "sk-ant-" + "a1b2c3d4" * 8, "Anthropic"),
    ],
)
def test_a_key_of_another_kind_is_pointed_out_and_still_taken(provider: str, key: str, says: str) -> None:
    (hint,) = pasted.hints(provider, key)
    assert says in hint
    assert pasted.key(key) == key


def test_the_shape_says_nothing_of_the_secret() -> None:
    shapes = {pasted.shape(provider, key) for provider, key in KEYS.items()}
    assert shapes == {"sk-proj", "azure84", "sk_hex48"}
    assert pasted.shape(Provider.AZURE_SPEECH, "0123456789abcdef" * 2) == "hex32"
    assert pasted.shape(Provider.OPENAI, "whatever-it-is") == "other"


@pytest.mark.parametrize(("key", "shown"), [("abcdefghijk", ""), ("abcdefghijkl", "ijkl"), (OPENAI_KEY, "wxyz")])
def test_a_key_shorter_than_twelve_shows_nothing(key: str, shown: str) -> None:
    assert pasted.last_four(key) == shown


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        "a\x00b",
        "a\x1bb",
        "a\u202eb",
        "a\u200bb",
        "a\ufeffb",
        "a\u2028b",
        "x" * 61,
        OPENAI_KEY[:60],
        "sk-abcdefghijklmnop",
    ],
)
def test_a_name_that_hides_something_or_is_a_key_is_refused(name: str) -> None:
    with pytest.raises(NameRefused) as refusal:
        pasted.connection_name(name)
    assert refusal.value.field == "name"
    assert name not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["Production", "  Zürich 2 ", "日本語", "a&b <i>", "risk-assessment-team-key", "🔑 x", ""]
)
def test_ordinary_names_are_taken(name: str) -> None:
    assert pasted.connection_name(name) == name.strip()


@pytest.mark.parametrize(
    ("typed", "region"),
    [
        ("westeurope", "westeurope"),
        ("West Europe", "westeurope"),
        (" EAST US 2 ", "eastus2"),
        ("UK\u00a0South", "uksouth"),
    ],
)
def test_a_region_is_normalised(typed: str, region: str) -> None:
    assert destinations.normalised_region(typed) == region


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "Choose the region"),
        ("usgovarizona", "Government"),
        ("US Gov Virginia", "Government"),
        ("chinaeast2", "China"),
        ("China North 3", "China"),
        ("southindia", "no such region"),
        ("spaincentral", "no such region"),
        ("evil?", "no such region"),
        ("evil.example/", "no such region"),
        ("westeurope.evil.example", "no such region"),
        ("westeurope#", "no such region"),
        ("westeurope@evil", "no such region"),
        ("ｗesteurope", "no such region"),
        ("127.0.0.1:80", "no such region"),
        (OPENAI_KEY, "no such region"),
    ],
)
def test_nothing_but_a_listed_region_reaches_an_address(typed: str, says: str) -> None:
    with pytest.raises(RegionRefused, match=says) as refusal:
        destinations.normalised_region(typed)
    assert refusal.value.field == "region"
    assert not typed or typed not in str(refusal.value)


def test_every_region_of_the_contract_is_listed() -> None:
    assert len(destinations.AZURE_REGIONS) == 33
    assert all(region.isalnum() and region.islower() for region in destinations.AZURE_REGIONS)


def test_the_destination_is_the_host_and_the_region(settings: pytest.FixtureRequest) -> None:
    settings.OPENAI_BASE_URL = "https://EU.api.openai.com/v1"  # type: ignore[attr-defined]
    settings.AZURE_SPEECH_TTS_URL = "https://{region}.tts.speech.microsoft.com"  # type: ignore[attr-defined]
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:8010/elevenlabs"  # type: ignore[attr-defined]

    assert destinations.canonical("openai", "") == "eu.api.openai.com"
    assert destinations.canonical("azure_speech", "uksouth") == "uksouth.tts.speech.microsoft.com/uksouth"
    assert destinations.canonical("elevenlabs", "") == "loopback"
