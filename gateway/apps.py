from django.apps import AppConfig


class GatewayConfig(AppConfig):
    name = "gateway"
    verbose_name = "Gateway"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # The site itself is no app; the highest app brings in its Celery application and its system checks.
        from gateway import selectors
        from insighto import celery, checks  # noqa: F401
        from provider_keys import impact

        impact.register(selectors.switch_impact)
