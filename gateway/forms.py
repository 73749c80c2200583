"""Forms of the assistant pages."""

import re
from typing import Any
from uuid import UUID

from django import forms
from django.http import QueryDict

from accounts.models import Account
from billing import reports
from billing.models import FundingSource, Leg
from gateway.models import Assistant
from gateway.upstreams import elevenlabs
from gateway.upstreams.voices import Voice, VoiceChoices
from provider_keys.models import Provider

MODEL = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:\-/]{0,79}$")

LANGUAGES = [
    ("en-US", "English (United States)"),
    ("en-GB", "English (United Kingdom)"),
    ("de-DE", "German"),
    ("fr-FR", "French"),
    ("es-ES", "Spanish"),
    ("it-IT", "Italian"),
    ("nl-NL", "Dutch"),
    ("pt-BR", "Portuguese (Brazil)"),
    ("ja-JP", "Japanese"),
]


class AssistantForm(forms.ModelForm[Assistant]):
    """Name, instructions, model and voice. `speaks_as` is one choice for provider and voice: "provider:voice"."""

    language = forms.ChoiceField(choices=LANGUAGES)
    speaks_as = forms.ChoiceField(label="Voice", required=False)

    class Meta:
        model = Assistant
        fields = ["name", "instructions", "chat_model", "language"]
        widgets = {
            "name": forms.TextInput(attrs={"autocomplete": "off", "maxlength": 60}),
            "instructions": forms.Textarea(attrs={"rows": 6}),
            "chat_model": forms.TextInput(attrs={"list": "chat-models", "autocomplete": "off", "spellcheck": "false"}),
        }

    def __init__(self, data: QueryDict | None = None, *, choices: list[VoiceChoices], **options: Any) -> None:
        super().__init__(data, **options)
        self._voices = {
            f"{group.provider}:{voice.id}": (group.provider, voice) for group in choices for voice in group.voices
        }
        groups = [(group.label, self._options(group)) for group in choices if group.voices]
        now = self.instance.voice and f"{self.instance.voice_provider}:{self.instance.voice}"
        if now and now not in self._voices:
            # The list may be out of reach just now, or the voice gone: what was chosen stays choosable.
            name = self.instance.voice_name or self.instance.voice
            self._voices[now] = (self.instance.voice_provider, Voice(self.instance.voice, name))
            groups.append(("Chosen before", [(now, f"{name} – not in the provider's list now")]))
        speaks_as = self.fields["speaks_as"]
        assert isinstance(speaks_as, forms.ChoiceField)
        speaks_as.choices = [("", "Does not speak"), *groups]
        self.initial.setdefault("speaks_as", now or "")

    def clean_chat_model(self) -> str:
        model: str = self.cleaned_data["chat_model"].strip()
        if not MODEL.fullmatch(model):
            raise forms.ValidationError("Enter a model's name as the provider spells it, for example gpt-6-luna.")
        return model

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        if not name.isprintable():
            raise forms.ValidationError("Use printable characters only.")
        return name

    def values(self) -> dict[str, str]:
        """What `services.assistants` takes, the chosen voice taken apart."""
        values = {name: self.cleaned_data[name] for name in self.Meta.fields}
        provider, voice = self._voices.get(self.cleaned_data["speaks_as"], ("", Voice("", "")))
        is_elevenlabs = provider == Assistant.VoiceProvider.ELEVENLABS
        return values | {
            "voice_provider": provider,
            "voice": voice.id,
            "voice_name": voice.name,
            "speech_model": elevenlabs.DEFAULT_MODEL if is_elevenlabs else "",
        }

    @staticmethod
    def _options(group: VoiceChoices) -> list[tuple[str, str]]:
        return [
            (f"{group.provider}:{voice.id}", f"{voice.name} ({voice.locale})" if voice.locale else voice.name)
            for voice in group.voices
        ]


class LineForm(forms.Form):
    """One line to an assistant."""

    text = forms.CharField(max_length=8000, strip=True, widget=forms.Textarea(attrs={"rows": 2}))


class UsageFilterForm(forms.Form):
    """The usage page's filters, from the query string; what does not fit filters nothing."""

    days = forms.ChoiceField(label="Period", choices=list(reports.PERIODS.items()), required=False)
    provider = forms.ChoiceField(choices=[("", "All providers"), *Provider.choices], required=False)
    source = forms.ChoiceField(label="Paid by", choices=[("", "Anyone"), *FundingSource.choices], required=False)
    state = forms.ChoiceField(label="State", choices=[("", "All states"), *Leg.State.choices], required=False)
    assistant = forms.ChoiceField(required=False)

    def __init__(self, data: QueryDict, *, account: Account) -> None:
        super().__init__({"days": "30", **data.dict()})
        names = Assistant.objects.of(account).order_by("name").values_list("pk", "name")
        assistant = self.fields["assistant"]
        assert isinstance(assistant, forms.ChoiceField)
        assistant.choices = [("", "All"), *((str(pk), name) for pk, name in names)]

    def filters(self) -> reports.Filters:
        self.is_valid()
        values = self.cleaned_data
        return reports.Filters(
            days=int(values.get("days") or 30),
            provider=values.get("provider") or "",
            funding_source=values.get("source") or "",
            state=values.get("state") or "",
            assistant=UUID(values["assistant"]) if values.get("assistant") else None,
        )
