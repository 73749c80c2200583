"""Clockwork of billing. Each task is one service call, safe to run twice and beside itself."""

import logging

from celery import shared_task

from billing.services import sweeper

logger = logging.getLogger(__name__)


@shared_task(name="billing.sweep_legs")
def sweep_legs() -> None:
    ended = sweeper.sweep()
    if ended:
        logger.warning("legs_swept %s", ended)
