from django.urls import path

from gateway.views import assistants, overview, playground, usage

app_name = "gateway"
urlpatterns = [
    path("", overview.landing, name="landing"),
    path("overview/", overview.overview_show, name="overview_show"),
    path("assistants/", assistants.assistant_list, name="assistant_list"),
    path("assistants/add/", assistants.assistant_add, name="assistant_add"),
    path("assistants/<uuid:assistant_id>/", assistants.assistant_edit, name="assistant_edit"),
    path("assistants/<uuid:assistant_id>/remove/", assistants.assistant_remove, name="assistant_remove"),
    path("playground/", playground.playground_open, name="playground_show"),
    path("playground/<uuid:assistant_id>/", playground.playground_show, name="playground_show"),
    path("playground/<uuid:assistant_id>/lines/", playground.line_send, name="line_send"),
    path("playground/<uuid:assistant_id>/clear/", playground.conversation_clear, name="conversation_clear"),
    path("playground/<uuid:assistant_id>/lines/<uuid:message_id>/speak/", playground.line_speak, name="line_speak"),
    path(
        "playground/<uuid:assistant_id>/lines/<uuid:message_id>/receipts/",
        playground.line_receipts,
        name="line_receipts",
    ),
    path("usage/", usage.usage_list, name="usage_list"),
    path("usage/export/", usage.usage_export, name="usage_export"),
    path("usage/requests/<uuid:request_id>/", usage.request_show, name="request_show"),
]
