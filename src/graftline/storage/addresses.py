"""Addresses of servers, which may have a password in them."""

import re

# A user name alone is as good as a password to many web servers: it is a token there.
_CREDENTIALS = re.compile(r"https?://[^/\s]*@|[\w+.-]+://[^/@\s:]*:[^/\s]*@", re.IGNORECASE)


def has_credentials(address: str) -> bool:
    """Returns whether an address begins with a password, or is one of the web and begins with a user name."""
    return _CREDENTIALS.match(address) is not None


def without_password(text: str) -> str:
    """Returns a text without the user names and passwords of the addresses in it; a password may hold an '@' itself."""
    return re.sub(r"//[^/\s]*@", "//", text)
