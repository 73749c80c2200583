"""The mail that tells a person about their place in an account."""

from django.conf import settings
from django.core.mail import send_mail
from django.template.loader import render_to_string
from django.urls import reverse

from accounts.models import Membership


def send(membership_id: int) -> bool:
    """Send it, to who is still a member; False when they are not. It carries no token: a password is set by reset."""
    membership = Membership.objects.select_related("user", "account").filter(pk=membership_id).first()
    if membership is None:
        return False
    way_in = "account_login" if membership.user.has_usable_password() else "account_reset_password"
    context = {
        "membership": membership,
        "url": settings.PUBLIC_URL + reverse(way_in),
        "is_new": not membership.user.has_usable_password(),
    }
    folder = "accounts/mail/invitation"
    send_mail(
        " ".join(render_to_string(f"{folder}/subject.txt", context).split()),
        render_to_string(f"{folder}/body.txt", context),
        settings.DEFAULT_FROM_EMAIL,
        [membership.user.email],
        html_message=render_to_string(f"{folder}/body.html", context),
    )
    return True
