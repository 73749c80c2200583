"""The second factor's seeds, sealed like provider keys and bound to the person they belong to.

allauth keeps them inside a JSON column and hands its adapter one text at a time, without
saying whose it is. So `encrypt` seals for nobody yet, saving the row binds every such text
to the row's user, and a text that names another user than its row does not load.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.mfa.totp import forms as totp_forms
from allauth.mfa.totp.internal import auth as totp
from django.db import transaction
from django.db.models.signals import post_init, pre_save

from insighto.lib import ids
from insighto.lib.secret import Secret
from provider_keys import crypto, fields, keyring
from provider_keys.crypto import Context, Kek, Ring, SealBroken, UnknownKek
from provider_keys.errors import CredentialLocked, CredentialUnreadable

_PREFIX: Final = "sealed:"
_NOBODY: Final = ""  # between `encrypt` and the save that says whose it is


class ActivateTOTPForm(totp_forms.ActivateTOTPForm):  # type: ignore[misc]
    """allauth's form, which keeps a new seed in the session until its first code proves it: sealed there too."""

    secret: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        session = context.request.session
        if self.secret.startswith(_PREFIX):
            try:
                self.secret = unseal_text(self.secret)
                return
            except (CredentialLocked, CredentialUnreadable):
                self.secret = totp.generate_totp_secret()  # the code will not fit, and the page shows a new seed
        session[totp.SECRET_SESSION_KEY] = seal_text(self.secret, owner=str(self.user.pk))


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """allauth's adapter with seeds sealed: `MFA_ADAPTER = "provider_keys.mfa.MFAAdapter"`."""

    def encrypt(self, text: str) -> str:
        return seal_text(text)

    def decrypt(self, encrypted_text: str) -> str:
        return unseal_text(encrypted_text)


def seal_text(text: str, *, owner: str = _NOBODY) -> str:
    """`text` sealed for the user whose primary key is `owner`; self-describing, prefixed `sealed:`."""
    with transaction.atomic():
        primary = keyring.for_sealing().primary
        return _text(owner, crypto.seal(Secret(text), key=primary, context=_context(owner)))


def unseal_text(sealed: str) -> str:
    """The text. Raises `CredentialLocked` or `CredentialUnreadable`, also for a text that was never sealed."""
    try:
        owner, ciphertext = _parts(sealed)
        return crypto.unseal(ciphertext, ring=keyring.load(), context=_context(owner)).reveal()
    except UnknownKek:
        raise CredentialLocked from None
    except SealBroken:
        raise CredentialUnreadable from None


class AuthenticatorSeeds:
    """Every sealed text in allauth's authenticators, as rotation sees them."""

    label = f"{Authenticator._meta.label_lower}.data"

    def kids(self) -> Counter[str]:
        return Counter(kid for _, data in self._rows() for kid in _kids(data))

    def stale(self, kid: str, *, after: Any, limit: int) -> list[Any]:
        # There is no column to ask: a person has a handful of these rows, and only few people have any.
        rows = (pk for pk, data in self._rows() if (after is None or pk > after) and set(_kids(data)) - {kid})
        return [pk for pk, _ in zip(rows, range(limit), strict=False)]

    def rewrap(self, pk: Any, *, ring: Ring, primary: Kek) -> bool:
        def renewed(text: str) -> str:
            owner, ciphertext = _parts(text)
            return _text(owner, crypto.rewrap(ciphertext, ring=ring, primary=primary, context=_context(owner)))

        # A recovery code used meanwhile changes the same column, so the row is locked rather than compared.
        with transaction.atomic():
            rows = Authenticator.objects.select_for_update().filter(pk=pk)
            for data in rows.values_list("data", flat=True):
                rows.update(data=_map(data, renewed))
        return True

    def _rows(self) -> Iterator[tuple[Any, Any]]:
        rows = Authenticator.objects.order_by("pk").values_list("pk", "data")
        yield from rows.iterator(chunk_size=500)


def connect() -> None:
    """Join the registry and watch allauth's rows being saved and loaded. Called once the apps are ready."""
    fields.register(AuthenticatorSeeds())
    pre_save.connect(_bind_to_owner, sender=Authenticator, dispatch_uid="provider_keys.mfa.bind")
    post_init.connect(_refuse_strangers, sender=Authenticator, dispatch_uid="provider_keys.mfa.refuse")


def _bind_to_owner(sender: type[Authenticator], instance: Authenticator, raw: bool = False, **_: object) -> None:
    if raw:  # a fixture being loaded says itself what the row holds
        return

    def bound(text: str) -> str:
        is_bound = not text.startswith(_PREFIX + _NOBODY + ":")
        return text if is_bound else seal_text(unseal_text(text), owner=str(instance.user_id))

    instance.data = _map(instance.data, bound)


def _refuse_strangers(sender: type[Authenticator], instance: Authenticator, **_: object) -> None:
    if "data" in instance.get_deferred_fields() or "user_id" in instance.get_deferred_fields():
        return
    # A stored row names its owner in every text; only a row that was never saved may not yet.
    allowed = {str(instance.user_id)} if instance.pk else {str(instance.user_id), _NOBODY}
    if any(text.removeprefix(_PREFIX).partition(":")[0] not in allowed for text in _texts(instance.data)):
        raise CredentialUnreadable


def _context(owner: str) -> Context:
    return Context(
        account_id=None,
        credential_id=ids.derived("mfa", owner),
        provider="",
        field="mfa.authenticator.data",
        secret_version=0,
        destination="",
    )


def _text(owner: str, ciphertext: bytes) -> str:
    return f"{_PREFIX}{owner}:{crypto.to_text(ciphertext)}"


def _parts(text: str) -> tuple[str, bytes]:
    owner, colon, encoded = text.removeprefix(_PREFIX).partition(":")
    if not text.startswith(_PREFIX) or not colon:
        raise SealBroken
    return owner, crypto.from_text(encoded)


def _kids(data: Any) -> list[str]:
    return [_kid(text) for text in _texts(data)]


def _kid(text: str) -> str:
    try:
        return crypto.kek_id_of(_parts(text)[1])
    except SealBroken:
        return fields.UNREADABLE


def _texts(data: Any) -> list[str]:
    found: list[str] = []

    def seen(text: str) -> str:
        found.append(text)
        return text

    _map(data, seen)
    return found


def _map(data: Any, change: Callable[[str], str]) -> Any:
    """`data` with every sealed text in it changed."""
    if isinstance(data, dict):
        return {key: _map(value, change) for key, value in data.items()}
    if isinstance(data, list):
        return [_map(value, change) for value in data]
    if isinstance(data, str) and data.startswith(_PREFIX):
        return change(data)
    return data
