import dataclasses
import uuid

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from insighto.lib.secret import Secret
from provider_keys import crypto, keyring
from provider_keys.crypto import Context, Kek, SealBroken, UnknownKek
from tests.provider_keys.conftest import ring_text

RING = keyring.parse(ring_text("k1", "k2"))
K1, K2 = RING.keks["k1"], RING.keks["k2"]
CONTEXT = Context(
    account_id=uuid.UUID(int=1),
    credential_id=uuid.UUID(int=2),
    provider="openai",
    field="credential",
    secret_version=3,
    destination="api.openai.com",
)
SECRET = "sk-proj-a-secret-of-the-tests"


def sealed(text: str = SECRET, context: Context = CONTEXT, key: Kek = K1) -> bytes:
    return crypto.seal(Secret(text), key=key, context=context)


def test_what_was_sealed_opens_with_its_own_context() -> None:
    assert crypto.unseal(sealed(), ring=RING, context=CONTEXT).reveal() == SECRET


def test_the_same_secret_is_never_sealed_to_the_same_bytes() -> None:
    first, second = sealed(), sealed()

    # Not even a part: another data key, other nonces.
    assert not {first[i : i + 8] for i in range(8, len(first) - 8)} & {second[i : i + 8] for i in range(8, len(second))}


def test_a_change_of_any_single_bit_is_refused() -> None:
    good = sealed()
    for position in range(len(good) * 8):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises((SealBroken, UnknownKek)):
            crypto.unseal(bytes(changed), ring=RING, context=CONTEXT)
    assert crypto.unseal(good, ring=RING, context=CONTEXT).reveal() == SECRET


def test_bytes_cut_anywhere_or_made_longer_are_refused() -> None:
    good = sealed()
    for wrong in [*(good[:length] for length in range(len(good))), good + b"\0", b"\0" + good, good + good]:
        with pytest.raises(SealBroken):
            crypto.unseal(wrong, ring=RING, context=CONTEXT)


@pytest.mark.parametrize(
    "change",
    [
        {"account_id": uuid.UUID(int=9)},
        {"account_id": None},
        {"credential_id": uuid.UUID(int=9)},
        {"provider": "elevenlabs"},
        {"field": "platform_credential"},
        {"secret_version": 2},
        {"destination": "eu.api.openai.com"},
        {"destination": ""},
    ],
    ids=str,
)
def test_bytes_moved_to_another_place_are_refused(change: dict[str, object]) -> None:
    elsewhere = dataclasses.replace(CONTEXT, **change)  # type: ignore[arg-type]

    with pytest.raises(SealBroken):
        crypto.unseal(sealed(), ring=RING, context=elsewhere)
    with pytest.raises(SealBroken):
        crypto.rewrap(sealed(), ring=RING, primary=K2, context=elsewhere)


@pytest.mark.parametrize(
    "change",
    [{"account_id": uuid.UUID(int=9)}, {"provider": "elevenlabs"}, {"secret_version": 2}, {"destination": "x"}],
    ids=str,
)
def test_each_of_the_two_layers_is_bound_by_itself(change: dict[str, object]) -> None:
    """The outer layer of one place around the inner layer of another does not open in either."""
    elsewhere = dataclasses.replace(CONTEXT, **change)  # type: ignore[arg-type]
    here, there = sealed(), sealed(context=elsewhere)
    body = len(crypto.MAGIC) + 3 + len("k1") + 12 + 48

    for chimera in (here[:body] + there[body:], there[:body] + here[body:]):
        for context in (CONTEXT, elsewhere):
            with pytest.raises(SealBroken):
                crypto.unseal(chimera, ring=RING, context=context)


def test_the_inner_layer_is_bound_even_for_who_has_the_data_key() -> None:
    envelope = crypto._parse(sealed())
    inner = AESGCM(crypto._unwrap(envelope, ring=RING, context=CONTEXT))
    nonce, ciphertext = envelope.body[:12], envelope.body[12:]
    elsewhere = dataclasses.replace(CONTEXT, destination="evil.example")

    for data in (None, b"", CONTEXT.associated_data(b"dek"), elsewhere.associated_data(b"secret")):
        with pytest.raises(InvalidTag):
            inner.decrypt(nonce, ciphertext, data)
    assert inner.decrypt(nonce, ciphertext, CONTEXT.associated_data(b"secret")).decode() == SECRET


def test_parts_of_the_context_do_not_run_into_each_other() -> None:
    one = dataclasses.replace(CONTEXT, provider="openai", field="xcredential")
    other = dataclasses.replace(CONTEXT, provider="openaix", field="credential")

    with pytest.raises(SealBroken):
        crypto.unseal(sealed(context=one), ring=RING, context=other)


def test_a_key_that_the_ring_lacks_is_named_and_not_called_broken() -> None:
    with pytest.raises(UnknownKek) as refusal:
        crypto.unseal(sealed(key=K2), ring=keyring.parse(ring_text("k1")), context=CONTEXT)
    assert refusal.value.kid == "k2"


def test_other_bytes_under_the_same_name_do_not_open() -> None:
    swapped = keyring.parse(ring_text("k1").replace(ring_text("k1").split("\n")[0], ring_text("k2").split("\n")[0]))
    impostor = {"k1": Kek("k1", b"0123456789abcdefghijklmnopqrstuv")}

    with pytest.raises(SealBroken):
        crypto.unseal(sealed(), ring=dataclasses.replace(swapped, keks=impostor), context=CONTEXT)


def test_a_rewrap_keeps_the_sealed_body_and_changes_only_the_wrapping() -> None:
    before = sealed()
    after = crypto.rewrap(before, ring=RING, primary=K2, context=CONTEXT)

    assert crypto.kek_id_of(after) == "k2"
    assert after[-len(SECRET) - 28 :] == before[-len(SECRET) - 28 :]
    assert crypto.unseal(after, ring=keyring.parse(ring_text("k2")), context=CONTEXT).reveal() == SECRET
    assert crypto.rewrap(after, ring=RING, primary=K2, context=CONTEXT) == after


@given(
    text=st.text(max_size=300),
    account_id=st.none() | st.uuids(),
    provider=st.text(max_size=20),
    field=st.text(max_size=20),
    version=st.integers(min_value=0, max_value=2**31),
    destination=st.text(max_size=60),
)
def test_any_text_in_any_place_comes_back_and_after_a_rewrap_too(
    text: str, account_id: uuid.UUID | None, provider: str, field: str, version: int, destination: str
) -> None:
    text, provider, field, destination = (
        part.encode("utf-8", "replace").decode() for part in (text, provider, field, destination)
    )
    context = Context(account_id, uuid.UUID(int=5), provider, field, version, destination)
    ciphertext = crypto.seal(Secret(text), key=K1, context=context)

    assert crypto.unseal(ciphertext, ring=RING, context=context).reveal() == text
    moved = crypto.rewrap(ciphertext, ring=RING, primary=K2, context=context)
    assert crypto.unseal(moved, ring=RING, context=context).reveal() == text


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: b"ISV\x01\x01\x02k1" + rest))
def test_bytes_from_anywhere_are_refused_and_never_crash(junk: bytes) -> None:
    with pytest.raises((SealBroken, UnknownKek)):
        crypto.unseal(junk, ring=RING, context=CONTEXT)


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_length_prefixed_parts_are_unambiguous(one: list[bytes], other: list[bytes]) -> None:
    assert (crypto.length_prefixed(*one) == crypto.length_prefixed(*other)) == (one == other)


def test_a_fingerprint_finds_the_same_key_in_one_account_and_nowhere_else() -> None:
    def mark(text: str, account: int, provider: str = "openai", key: Kek = RING.fingerprint) -> bytes:
        return crypto.fingerprint(Secret(text), key=key, account_id=uuid.UUID(int=account), provider=provider)

    assert mark(SECRET, 1) == mark(SECRET, 1)
    assert len({mark(SECRET, 1), mark(SECRET, 2), mark(SECRET, 1, "x"), mark("other", 1), mark(SECRET, 1, key=K1)}) == 5


def test_the_check_value_tells_bytes_and_names_apart() -> None:
    assert crypto.check_value(K1) == crypto.check_value(Kek("k1", _bytes_of("k1")))
    assert crypto.check_value(K1) != crypto.check_value(Kek("k2", _bytes_of("k1")))
    assert crypto.check_value(K1) != crypto.check_value(Kek("k1", _bytes_of("k2")))


def test_a_kek_gives_its_bytes_to_nobody() -> None:
    import copy
    import pickle

    for leak in (repr(K1), str(K1), f"{K1}", repr(RING)):
        assert _bytes_of("k1").hex() not in leak
        assert repr(_bytes_of("k1"))[2:-1] not in leak
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        for thing in (K1, RING):
            with pytest.raises(TypeError):
                copying(thing)


def _bytes_of(kid: str) -> bytes:
    import hashlib

    return hashlib.sha256(kid.encode()).digest()
