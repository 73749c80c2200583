"""What people type on the pages of accounts."""

from datetime import timedelta
from typing import Any, ClassVar

from allauth.account.forms import SignupForm as AllauthSignupForm
from allauth.account.internal.flows.login import record_authentication
from django import forms
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from accounts import names
from accounts.models import Membership, User
from accounts.services import signup
from insighto.lib.errors import DomainError


class NameField(forms.CharField):
    """One line of printable characters."""

    def clean(self, value: Any) -> str:
        text = super().clean(value)
        try:
            return names.clean(text, limit=self.max_length or 80)
        except DomainError as error:
            raise forms.ValidationError(str(error), code=error.code) from None


class SignupForm(AllauthSignupForm):  # type: ignore[misc]
    """allauth's sign-up, plus the name of the account it makes."""

    account_name = NameField(
        label="Account name", max_length=80, help_text="Your company or project. People you invite see it."
    )

    field_order: ClassVar[list[str]] = ["account_name", "email", "password1", "password2"]

    @transaction.atomic
    def save(self, request: HttpRequest) -> User:
        """The user and their main account, both or neither."""
        user: User = super().save(request)
        signup.create_account(name=self.cleaned_data["account_name"], owner=user)
        # They have just chosen their password: being asked for it again on the way to the first key helps nobody.
        record_authentication(request, user, method="password", email=user.email)
        return user


class ApiKeyForm(forms.Form):
    LIFETIMES: ClassVar[dict[str, timedelta | None]] = {
        "": None,
        "30": timedelta(days=30),
        "90": timedelta(days=90),
        "365": timedelta(days=365),
    }

    name = NameField(label="Name", max_length=60, help_text="What will use it, for example “Production server”.")
    expires = forms.ChoiceField(
        label="Expires",
        required=False,
        choices=[("", "Never"), ("30", "In 30 days"), ("90", "In 90 days"), ("365", "In a year")],
    )

    def values(self) -> dict[str, Any]:
        lifetime = self.LIFETIMES[self.cleaned_data["expires"]]
        return {"name": self.cleaned_data["name"], "expires_at": timezone.now() + lifetime if lifetime else None}


class SubaccountForm(forms.Form):
    name = NameField(label="Name", max_length=80)
    owner_email = forms.EmailField(
        label="Owner’s e-mail", required=False, help_text="They are invited by e-mail. Empty: you own it."
    )


class MemberForm(forms.Form):
    email = forms.EmailField(label="E-mail")
    role = forms.ChoiceField(label="Role", choices=Membership.Role.choices, initial=Membership.Role.MEMBER)


class RoleForm(forms.Form):
    role = forms.ChoiceField(label="Role", choices=Membership.Role.choices)
