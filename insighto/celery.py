"""The Celery application and the clockwork: what runs when, without anybody asking."""

import os
from typing import Any

from celery import Celery, signals
from django_structlog.celery.steps import DjangoStructLogInitStep

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "insighto.settings")

app = Celery("insighto")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.steps["worker"].add(DjangoStructLogInitStep)
app.autodiscover_tasks()

app.conf.beat_schedule = {}


def keep_our_logging(**_: Any) -> None:
    """A receiver here stops Celery from installing its own handlers; settings have set up ours."""


signals.setup_logging.connect(keep_our_logging)
