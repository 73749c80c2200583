"""How allauth behaves here: where people land, and what sign-up stores."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest
from django.urls import reverse

from accounts.models import Membership


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    def get_login_redirect_url(self, request: HttpRequest) -> str:
        """Operators without an account of their own land on the administration."""
        user: Any = request.user
        if user.is_authenticated and user.is_staff and not Membership.objects.filter(user=user).exists():
            return reverse("admin:index")
        return str(super().get_login_redirect_url(request))
