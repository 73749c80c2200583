"""Where a provider's keys go: the fixed host of each provider, and the Azure regions that exist.

The region is part of Azure's host name, so it decides who receives the key: nothing but a
member of this list ever reaches an address (provider-contracts §4.1).
"""

from typing import Final
from urllib.parse import urlsplit

from django.conf import settings

from provider_keys.errors import RegionRefused

AZURE_REGIONS: Final = frozenset(
    {
        "southafricanorth",
        "eastasia",
        "southeastasia",
        "australiaeast",
        "centralindia",
        "japaneast",
        "japanwest",
        "koreacentral",
        "canadacentral",
        "canadaeast",
        "northeurope",
        "westeurope",
        "francecentral",
        "germanywestcentral",
        "italynorth",
        "norwayeast",
        "swedencentral",
        "switzerlandnorth",
        "switzerlandwest",
        "uksouth",
        "ukwest",
        "uaenorth",
        "brazilsouth",
        "qatarcentral",
        "centralus",
        "eastus",
        "eastus2",
        "northcentralus",
        "southcentralus",
        "westcentralus",
        "westus",
        "westus2",
        "westus3",
    }
)
_GOVERNMENT: Final = frozenset({"usgovarizona", "usgovvirginia"})
_CHINA: Final = frozenset({"chinaeast2", "chinanorth2", "chinanorth3"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def normalised_region(typed: str) -> str:
    """An allow-listed region from what a person typed: "West Europe" is `westeurope`."""
    region = "".join(typed.split()).lower()
    if region in AZURE_REGIONS:
        return region
    if not region:
        raise RegionRefused("Choose the region of your Azure Speech resource.", field="region")
    if region in _GOVERNMENT:
        message = "Azure US Government regions are a separate cloud with separate keys, which Insighto does not use."
        raise RegionRefused(message, field="region")
    if region in _CHINA:
        message = "Azure China regions are a separate cloud with separate keys, which Insighto does not use."
        raise RegionRefused(message, field="region")
    # What was typed is not repeated: a key pasted into the wrong field must not come back on the page.
    message = "Azure Speech has no such region. Use the location of your resource, for example West Europe."
    raise RegionRefused(message, field="region")


def canonical(provider: str, region: str) -> str:
    """The target a key is bound to: the provider's host, and the region where there is one.

    Names of this machine count as one: a local provider keeps its keys whatever it is called.
    """
    templates = {
        "openai": settings.OPENAI_BASE_URL,
        "azure_speech": settings.AZURE_SPEECH_TTS_URL,
        "elevenlabs": settings.ELEVENLABS_BASE_URL,
    }
    host = (urlsplit(templates[provider].replace("{region}", region)).hostname or "").lower()
    host = "loopback" if host in _LOOPBACK else host
    return f"{host}/{region}" if region else host
