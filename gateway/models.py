"""The product's own things: assistants and the conversations of the playground."""

from django.db import models
from django.utils import timezone

from accounts.models import Account, TenantQuerySet, User
from insighto.lib import ids


class Assistant(models.Model):
    """Instructions, a chat model and a voice that belong together."""

    class VoiceProvider(models.TextChoices):
        AZURE_SPEECH = "azure_speech", "Azure Speech"
        ELEVENLABS = "elevenlabs", "ElevenLabs"

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="assistants")
    name = models.CharField(max_length=60)
    instructions = models.TextField(max_length=8000, blank=True)
    chat_model = models.CharField(max_length=80)
    voice_provider = models.CharField(max_length=16, choices=VoiceProvider, blank=True)  # empty: does not speak
    voice = models.CharField(max_length=120, blank=True)
    voice_name = models.CharField(max_length=80, blank=True)
    speech_model = models.CharField(max_length=80, blank=True)  # ElevenLabs model
    language = models.CharField(max_length=12, default="en-US")
    created_at = models.DateTimeField(default=timezone.now)

    objects = TenantQuerySet["Assistant"].as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "name"], name="gateway_assistant_name_unique"),
        ]

    def __str__(self) -> str:
        return self.name


class Message(models.Model):
    """One line of one person's conversation with an assistant; an answer names the requests that made it."""

    class Role(models.TextChoices):
        USER = "user", "You"
        ASSISTANT = "assistant", "Assistant"

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+")
    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="messages")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    role = models.CharField(max_length=9, choices=Role)
    text = models.TextField(blank=True)
    is_complete = models.BooleanField(default=True)
    chat_request_id = models.UUIDField(null=True)
    speech_request_id = models.UUIDField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = TenantQuerySet["Message"].as_manager()

    class Meta:
        indexes = [models.Index(fields=["assistant", "user", "created_at"], name="gateway_message_thread")]

    def __str__(self) -> str:
        return self.text[:40]
