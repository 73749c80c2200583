"""Filters of the settings page."""

from django import forms, template

register = template.Library()


@register.filter
def field(form: forms.BaseForm, name: str) -> forms.BoundField:
    """The form's field of that name; templates cannot index by a variable."""
    return form[name]
