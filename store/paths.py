"""Ids in the paths of requests, written so that no proxy changes them on the way.

Proxies take ``%2F`` for a slash, or refuse it, merge slashes and follow dots. An id that is not made of
letters, digits and ``._-`` alone thus travels as ``~`` and its base64url. A server also takes percent signs.
"""

import re
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as NotBase64

from .errors import InvalidValue

_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_MARK = "~"


def path_segment(value: str, field: str) -> str:
    """Returns the id as a segment of a path; InvalidValue if it cannot be written as UTF-8."""
    if _SAFE.fullmatch(value):
        return value
    try:
        return _MARK + urlsafe_b64encode(value.encode()).decode().rstrip("=")
    except UnicodeEncodeError:
        raise InvalidValue(f"{field} is {value!a}, which is half of a character") from None


def id_of_segment(segment: str, field: str) -> str:
    """Returns the id of a segment less its percent signs; InvalidValue for ``~`` and what is no base64url."""
    if not segment.startswith(_MARK):
        return segment
    coded = segment[1:]
    try:
        return b64decode(coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True).decode()
    except (NotBase64, ValueError):
        raise InvalidValue(f"{field} is {segment!a}; after ~ give the base64url of an id") from None
