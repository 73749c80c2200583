"""What people type on the settings page. Rules live in the services; a key is never rendered back."""

from typing import Any

from django import forms

from provider_keys import destinations, pasted
from provider_keys.models import Provider
from provider_keys.readiness import BRANDS
from provider_keys.selectors import SettingsPage


class SecretInput(forms.PasswordInput):
    """A field for a secret: pasteable, never filled in by us or by the browser, never rendered with its value."""

    def __init__(self) -> None:
        super().__init__(
            render_value=False,
            attrs={
                "autocomplete": "off",
                "autocapitalize": "none",
                "spellcheck": "false",
                "data-secret": "",
                "data-focus": "",
                "data-1p-ignore": "",
                "data-lpignore": "true",
            },
        )


class VisibleInput(forms.TextInput):
    """A field whose text is shown again beside its error, unless a key was pasted into it."""

    def format_value(self, value: Any) -> str | None:
        return None if value and pasted.looks_like_key(str(value)) else super().format_value(value)


class ConnectionForm(forms.Form):
    """A key for one provider; Azure's needs a region. `name` falls back to the suggested one."""

    key = forms.CharField(max_length=4096, strip=False, widget=SecretInput)
    region = forms.CharField(
        max_length=60,
        widget=VisibleInput(
            attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false", "placeholder": "westeurope"}
        ),
        help_text="As the portal shows it beside the key, such as westeurope.",
    )
    name = forms.CharField(
        max_length=200,
        required=False,
        widget=VisibleInput(attrs={"autocomplete": "off"}),
        help_text="How you will recognise it: in drop-downs, receipts and usage.",
    )

    def __init__(
        self, data: Any = None, *, provider: str, suggested_name: str = "", region: str = "", with_name: bool = True
    ) -> None:
        super().__init__(data, auto_id=f"{provider}-%s", initial={"name": suggested_name, "region": region})
        self.provider = provider
        self.suggested_name = suggested_name
        brand = BRANDS[provider]
        self.fields["key"].label = f"{brand} API key"
        self.fields["key"].error_messages["required"] = "Paste the key."
        self.fields["key"].error_messages["max_length"] = "This is far too long for a key."
        self.fields["region"].error_messages["required"] = "Enter the region of the Speech resource."
        if provider != Provider.AZURE_SPEECH:
            del self.fields["region"]
        else:
            self.fields["region"].widget.attrs["list"] = f"{provider}-regions"
        if not with_name:
            del self.fields["name"]

    @property
    def regions(self) -> list[str]:
        return sorted(destinations.AZURE_REGIONS) if "region" in self.fields else []

    def clean_name(self) -> str:
        return str(self.cleaned_data["name"]).strip() or self.suggested_name


class NameForm(forms.Form):
    """Another name for a connection."""

    name = forms.CharField(max_length=200, widget=VisibleInput(attrs={"autocomplete": "off", "data-focus": ""}))


class SlotsForm(forms.Form):
    """Which connection each slot uses: one drop-down per provider; the choices are the account's own."""

    def __init__(self, data: Any = None, *, page: SettingsPage) -> None:
        super().__init__(data, auto_id="slot-%s")
        for card in page.providers:
            chosen = card.selected or (card.connections[-1] if card.connections else None)
            field = forms.ChoiceField(
                label=f"{card.label} connection",
                required=False,
                choices=[("", "None selected"), *((str(item.id), _label(item)) for item in card.connections)],
                initial=str(chosen.id) if chosen else "",
                widget=forms.Select(attrs={"class": "select", "form": "slots", "autocomplete": "off"}),
                error_messages={"invalid_choice": "This connection was removed. Choose another one."},
            )
            self.fields[card.provider] = field


def _label(item: Any) -> str:
    """ "Production · …4f2a · westeurope"."""
    if item.is_placeholder:
        return f"{item.name} · Not used"
    tail = f" · …{item.last_four}" if item.last_four else ""
    return f"{item.name}{tail}" + (f" · {item.region}" if item.region else "")
