"""Settings → Your Provider Keys."""

from django.urls import path

from provider_keys import views

app_name = "provider_keys"

urlpatterns = [
    path("", views.connection_list, name="connection_list"),
    path("slots/", views.slot_submit, name="slot_submit"),
    path("check/", views.check_start, name="check_start"),
    path("status/", views.check_status, name="check_status"),
    path("switch/", views.switch_confirm, name="switch_confirm"),
    path("switch/set/", views.switch_set, name="switch_set"),
    path("connections/<uuid:connection_id>/rename/", views.connection_rename, name="connection_rename"),
    path("connections/<uuid:connection_id>/replace/", views.connection_replace, name="connection_replace"),
    path("connections/<uuid:connection_id>/remove/", views.connection_remove, name="connection_remove"),
    path("elevenlabs/not-used/", views.placeholder_add, name="placeholder_add"),
    path("<slug:provider>/add/", views.connection_add, name="connection_add"),
]
