"""The refusals of this app.

::

    DomainError
    ├── EntryRefused               something typed cannot be taken; `field` says which
    │   ├── KeyMalformed           no provider issues keys that look like this
    │   ├── KeyIsExample           a placeholder where a real key is needed
    │   ├── KeyAlreadyStored       the account has it as another connection
    │   ├── NameRefused
    │   ├── RegionRefused
    │   └── TooManyConnections
    ├── ConnectionRefused          the connection cannot do what is asked of it
    │   ├── ConnectionGone         removed, or of another provider
    │   ├── ConnectionInUse        a live slot uses it
    │   ├── ConnectionNotReady     a live slot needs a key that passed its check
    │   └── ConnectionBeingChecked the same, and the answer is on its way
    ├── TooManyChecks              Check Status pressed too often
    ├── SwitchRefused              Use My API Keys stays off; `obstacles` say why
    ├── CredentialClosed           a stored key cannot be opened
    │   ├── CredentialLocked       the key ring lacks its KEK version; it comes back with the ring
    │   └── CredentialUnreadable   changed, moved, destroyed, or stored for another address
    └── KekRefused                 a KEK version cannot be retired or used

`KeyRingUnusable` stands apart: the installation is wrong, so the process refuses to start.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from insighto.lib.errors import DomainError

if TYPE_CHECKING:
    from provider_keys.readiness import Obstacle


class KeyRingUnusable(ImproperlyConfigured):
    """The key ring is missing, damaged, readable by others, or not the one the database was sealed with."""


class EntryRefused(DomainError):
    code = "entry_refused"


class KeyMalformed(EntryRefused):
    code = "key_malformed"
    message = "This is not a key. Paste the whole key, without spaces or line breaks in it."


class KeyIsExample(EntryRefused):
    code = "key_is_example"
    message = "This is an example, not a key. Paste the key itself."


class KeyAlreadyStored(EntryRefused):
    code = "key_already_stored"


class NameRefused(EntryRefused):
    code = "name_refused"


class RegionRefused(EntryRefused):
    code = "region_refused"


class TooManyConnections(EntryRefused):
    code = "too_many_connections"


class ConnectionRefused(DomainError):
    code = "connection_refused"


class ConnectionGone(ConnectionRefused):
    code = "connection_gone"
    message = "This connection was removed. Choose another one."


class ConnectionInUse(ConnectionRefused):
    code = "connection_in_use"


class ConnectionNotReady(ConnectionRefused):
    code = "connection_not_ready"


class ConnectionBeingChecked(ConnectionNotReady):
    code = "connection_being_checked"


class TooManyChecks(DomainError):
    code = "too_many_checks"
    message = "The keys were checked many times in the last minute. Wait a minute, then press Check Status again."


class SwitchRefused(DomainError):
    code = "switch_refused"
    message = "Use My API Keys stays off."

    def __init__(self, obstacles: "Sequence[Obstacle]") -> None:
        super().__init__(" ".join([self.message, *(obstacle.message for obstacle in obstacles)]))
        self.obstacles = tuple(obstacles)


class CredentialClosed(DomainError):
    code = "credential_closed"


class CredentialLocked(CredentialClosed):
    code = "credential_locked"
    message = "This key is locked: the encryption key it was stored with is not available at the moment."


class CredentialUnreadable(CredentialClosed):
    code = "credential_unreadable"
    message = "This stored key cannot be opened. Enter it again."


class KekRefused(DomainError):
    code = "kek_refused"
