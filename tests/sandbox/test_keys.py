import re
import subprocess
import sys

import pytest

from insighto.sandbox import keys
from insighto.sandbox.keys import Outcome

SHAPES = {
    keys.OPENAI: r"sk-proj-[A-Za-z0-9_-]{40,160}",
    keys.AZURE: r"[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{18}ACOG[A-Za-z0-9]{4}",
    keys.ELEVENLABS: r"sk_[0-9a-f]{48}",
}


@pytest.mark.parametrize("provider", keys.PROVIDERS)
def test_every_listed_key_has_the_providers_shape_and_is_read_back(provider: str) -> None:
    listed = [known for known, _ in keys.listed(provider)]

    assert len({known.text for known in listed}) == len(listed)
    assert {known.outcome for known in listed} == set(keys.OUTCOMES[provider])
    for known in listed:
        assert re.fullmatch(SHAPES[provider], known.text)
        assert keys.read(provider, known.text) == known


@pytest.mark.parametrize("provider", keys.PROVIDERS)
def test_two_hundred_tags_make_two_hundred_accounts(provider: str) -> None:
    made = {keys.valid_key(provider, f"account-{number}") for number in range(200)}

    assert len(made) == 200
    assert {keys.name(provider, text) for text in made} == {f"account-{number}" for number in range(200)}


@pytest.mark.parametrize("provider", keys.PROVIDERS)
def test_a_key_changed_in_one_place_is_unknown(provider: str) -> None:
    text = keys.valid_key(provider, "one")
    for place in range(len(text)):
        changed = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]
        assert keys.read(provider, changed) is None


def test_a_key_belongs_to_one_provider_and_an_azure_key_to_one_region() -> None:
    assert keys.read(keys.ELEVENLABS, keys.valid_key(keys.OPENAI, "one")) is None
    west, north = (keys.valid_key(keys.AZURE, "one", region=region) for region in ("westeurope", "northeurope"))
    assert west != north
    known = keys.read(keys.AZURE, north)
    assert known is not None
    assert (known.tag, known.region) == ("one", "northeurope")


def test_the_name_of_a_key_never_contains_it() -> None:
    text = keys.valid_key(keys.OPENAI, "one")
    assert keys.name(keys.OPENAI, text) == "one"
    assert keys.name(keys.OPENAI, keys.key(keys.OPENAI, Outcome.DOWN)) == "down"
    assert keys.name(keys.OPENAI, "some other text").startswith("unknown:")


@pytest.mark.parametrize("tag", ["Upper", "with space", "x" * 25, "ümlaut"])
def test_what_is_not_a_tag_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="not a tag"):
        keys.valid_key(keys.OPENAI, tag)


def test_the_sandbox_loads_neither_django_nor_an_sdk() -> None:
    probe = (
        "import sys, insighto.sandbox.server; "
        "print([name for name in sys.modules if name in ('django', 'openai', 'elevenlabs', 'celery')])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
