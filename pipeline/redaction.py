"""Takes credentials out of addresses, before these become text for people or for files."""

import re

_HIDDEN = "***"
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s\"'<>]+@", re.IGNORECASE)
"""The name and password of `scheme://name:password@host`."""
_PARAMETER = re.compile(
    r"([?&;#][\w.-]*(?:token|secret|password|passwd|pwd|pass|key|keyid|accessid|signature|sig|"
    r"credential|auth|jwt|sas|session|policy)=)[^&;\s\"'<>#]+",
    re.IGNORECASE,
)
"""A part of a query that lets whoever has it read what its owner may read."""


def without_secrets(text: str) -> str:
    """A text in which the credentials of all addresses are replaced by ***."""
    if "://" not in text:  # nearly every text
        return text
    return _PARAMETER.sub(rf"\1{_HIDDEN}", _USER.sub(rf"\1{_HIDDEN}@", text))
