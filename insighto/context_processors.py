"""What every page knows about the installation it is served by."""

from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, str]:
    return {"sandbox_url": settings.SANDBOX_URL}
