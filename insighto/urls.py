"""Every page. The APIs (`/v1`, `/cognitiveservices`, `/sts`) and health never get here: see `insighto/asgi.py`."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path

# Operators sign in as everybody does: with MFA and its rate limits.
admin.autodiscover()
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]
admin.site.site_header = "Insighto operators"
admin.site.site_title = "Insighto"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("", include("accounts.urls")),
    path("", include("billing.urls")),
    path("", include("gateway.urls")),
    path("settings/provider-keys/", include("provider_keys.urls")),
]
