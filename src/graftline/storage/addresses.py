"""Addresses of servers, which may have a password in them."""

import re

from graftline.errors import GraftlineError

# A user name alone is as good as a password to many web servers: it is a token there.
_CREDENTIALS = re.compile(r"https?://[^/\s]*@|[\w+.-]+://[^/@\s:]*:[^/\s]*@", re.IGNORECASE)


def refuse_credentials(what: str, address: str, instead: str) -> None:
    """Refuses an address that begins with a password, or is one of the web and begins with a user name.

    It would be written down with the arguments of a run, and a process list shows it.

    Args:
        what: What the user calls the address.
        address: To be looked at; '' has none.
        instead: Where credentials go.

    Raises:
        GraftlineError: It has some; the message repeats none of them.
    """
    if _CREDENTIALS.match(address):
        raise GraftlineError(
            f"{what}, {without_password(address)}, must not hold credentials, not even a user name, which would be "
            f"written down with it: {instead}"
        )


def without_password(text: str) -> str:
    """Returns a text without the user names and passwords of the addresses in it; a password may hold an '@' itself."""
    return re.sub(r"//[^/\s]*@", "//", text)
