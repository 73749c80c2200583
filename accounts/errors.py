"""The refusals of accounts.

DomainError
└── AccountsError
    ├── NameRejected           an empty name, one too long, or one with control characters
    ├── NestedSubaccount       a subaccount of a subaccount
    ├── LastOwner              the account would be left without an owner
    ├── OwnersOnly             an admin touches an owner or makes one
    ├── AlreadyMember          the person is in the account
    └── ExpiryInPast           an API key that would never work
"""

from insighto.lib.errors import DomainError


class AccountsError(DomainError):
    pass


class NameRejected(AccountsError):
    code = "name_rejected"
    message = "Please enter a name of printable characters."


class NestedSubaccount(AccountsError):
    code = "nested_subaccount"
    message = "A subaccount cannot have subaccounts of its own."


class LastOwner(AccountsError):
    code = "last_owner"
    message = "An account keeps at least one owner. Make somebody else an owner first."


class OwnersOnly(AccountsError):
    code = "owners_only"
    message = "Only an owner can add, change or remove an owner."


class AlreadyMember(AccountsError):
    code = "already_member"
    message = "This person is already in the team."


class ExpiryInPast(AccountsError):
    code = "expiry_in_past"
    message = "The expiry has to be in the future."
