"""What an answer means that is not the one asked for: the server's own errors, or a proxy's on the way."""

from . import errors
from .errors import InvalidValue, StoreError
from .wire import error_from, load

_FROM_PROXIES = frozenset({429, 502, 503, 504})
"""What proxies say while there is no server behind them, or they are asked too often."""


def refusal(url: str, status: int, content: bytes) -> Exception | None:
    """Returns the error that the answer names; None if a proxy says that there is nobody to answer yet.

    Of these a server only sends 503 itself, for a store that cannot do what was asked.
    """
    try:
        answer = load(content, "the answer")
    except InvalidValue:
        answer = None
    error = error_from(answer)
    if status in _FROM_PROXIES:
        is_ours = status == 503 and error is not None and answer["error"]["type"] in errors.__all__
        return error if is_ours else None
    return error or StoreError(f"{url} answers with status {status}; is it the server of a store?")
