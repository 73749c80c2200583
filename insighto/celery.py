"""The Celery application and the clockwork: what runs when, without anybody asking."""

import os
from pathlib import Path
from typing import Any

from celery import Celery, signals
from django_structlog.celery.steps import DjangoStructLogInitStep

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "insighto.settings")

app = Celery("insighto")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.steps["worker"].add(DjangoStructLogInitStep)
app.autodiscover_tasks()

app.conf.beat_schedule = {
    # A tick that nobody took in time is dropped: the next one says the same.
    "ring due outbox": {"task": "accounts.ring_due_outbox", "schedule": 3.0, "options": {"expires": 3}},
    "sweep legs": {"task": "billing.sweep_legs", "schedule": 10.0, "options": {"expires": 10}},
    "forget done outbox": {"task": "accounts.forget_done_outbox", "schedule": 3600.0, "options": {"expires": 600}},
}


def keep_our_logging(**_: Any) -> None:
    """A receiver here stops Celery from installing its own handlers; settings have set up ours."""


signals.setup_logging.connect(keep_our_logging)


def say_ready(**_: Any) -> None:
    """Tell the supervisor, which waits for this file (insighto/dev/supervisor.py)."""
    path = os.environ.get("INSIGHTO_READY_FILE")
    if path:
        Path(path).touch()


def check_key_ring(**_: Any) -> None:
    """A worker on the wrong key ring would find every key unreadable."""
    from provider_keys import keyring  # needs Django set up

    keyring.check_before_serving()


signals.worker_init.connect(check_key_ring)
signals.worker_ready.connect(say_ready)
signals.beat_init.connect(say_ready)
