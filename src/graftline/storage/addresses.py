"""Addresses of servers, which may have a password in them."""

import re


def without_password(text: str) -> str:
    """Returns a text without the user names and passwords of the addresses in it."""
    return re.sub(r"//[^/@\s]*@", "//", text)
