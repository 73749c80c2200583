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
from gateway.upstreams import voices
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
    """Name, instructions, model and voice. `voice` is the provider's id; its name is looked up by the view."""

    language = forms.ChoiceField(choices=LANGUAGES)

    class Meta:
        model = Assistant
        fields = ["name", "instructions", "chat_model", "voice_provider", "voice", "language"]
        widgets = {
            "name": forms.TextInput(attrs={"autocomplete": "off", "maxlength": 60}),
            "instructions": forms.Textarea(attrs={"rows": 6}),
            "chat_model": forms.TextInput(attrs={"list": "chat-models", "autocomplete": "off", "spellcheck": "false"}),
            "voice": forms.TextInput(attrs={"list": "voices", "autocomplete": "off", "spellcheck": "false"}),
        }

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

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        provider, voice = values.get("voice_provider", ""), values.get("voice", "").strip()
        values["voice"] = voice
        if not provider:
            values["voice"] = ""
        elif not voice:
            self.add_error("voice", "Choose a voice, or set the voice provider to none.")
        elif provider == Assistant.VoiceProvider.AZURE_SPEECH and not voices.AZURE_NAME.fullmatch(voice):
            self.add_error("voice", "Enter an Azure voice's short name, for example en-US-AvaNeural.")
        elif provider == Assistant.VoiceProvider.ELEVENLABS and not voices.ELEVENLABS_ID.fullmatch(voice):
            self.add_error("voice", "Enter an ElevenLabs voice id: 20 letters and digits.")
        return values


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
