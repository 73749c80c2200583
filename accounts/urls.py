from django.urls import path

from accounts import views

app_name = "accounts"

urlpatterns = [
    path("account/switch/", views.account_switch, name="account_switch"),
    path("api-keys/", views.api_key_list, name="api_key_list"),
    path("api-keys/issue/", views.api_key_issue, name="api_key_issue"),
    path("api-keys/<uuid:api_key_id>/revoke/", views.api_key_revoke, name="api_key_revoke"),
    path("subaccounts/", views.subaccount_list, name="subaccount_list"),
    path("subaccounts/add/", views.subaccount_add, name="subaccount_add"),
    path("team/", views.team_list, name="team_list"),
    path("team/add/", views.member_add, name="member_add"),
    path("team/<int:membership_id>/role/", views.member_change, name="member_change"),
    path("team/<int:membership_id>/remove/", views.member_remove, name="member_remove"),
    path("activity/", views.activity_list, name="activity_list"),
    path("activity.csv", views.activity_export, name="activity_export"),
]
