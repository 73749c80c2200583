"""The tests' own ground: servers, network guard, emptied tables."""

import socket

import pytest
import redis
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import connection


def test_no_test_reaches_another_machine():
    with pytest.raises(RuntimeError, match=r"this machine only"):
        socket.create_connection(("192.0.2.1", 9), timeout=0.1)
    with pytest.raises(RuntimeError, match=r"this machine only"):
        socket.getaddrinfo("example.com", 443)


def test_the_tests_have_a_valkey_of_their_own():
    client = redis.Redis.from_url(settings.REDIS_URL)
    assert client.ping()
    client.close()
    assert settings.REDIS_URL.startswith("unix://")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("turn", [1, 2])
def test_tables_are_emptied_after_a_commit_and_what_migrations_made_is_back(turn):
    assert not ContentType.objects.filter(app_label="left_behind").exists()
    assert ContentType.objects.filter(app_label="accounts").exists()
    ContentType.objects.create(app_label="left_behind", model=f"turn{turn}")


@pytest.mark.django_db
def test_append_only_triggers_are_there():
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'")
        else:
            cursor.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
        assert cursor.fetchone()[0] > 0
