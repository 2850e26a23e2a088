"""The way to a store's server for any number of event loops and threads: a line for each loop."""

import asyncio
import ssl
import threading
from weakref import finalize

from yarl import URL

from .errors import InvalidValue
from .http_line import Endpoint, HttpLine, closed

_Lines = dict[asyncio.AbstractEventLoop, HttpLine]


class HttpLink:
    """Hands out lines, so that no request crosses from one thread to another. Thread-safe."""

    def __init__(
        self, url: str, *, token: str | None, ca: str | None, compress: bool, retry_seconds: float
    ) -> None:
        url = checked_url(url)
        if token is not None and not token.isprintable():
            raise InvalidValue("token has a line break or the like, which no header holds; give it without")
        tls = _trusting(ca) if url.startswith("https:") else None
        self._endpoint = Endpoint(url, token, tls, compress, retry_seconds)
        self._lock = threading.Lock()
        self._lines: _Lines = {}
        self._closed = False
        finalize(self, _discard, self._lines)  # also before the interpreter ends

    def line(self) -> HttpLine:
        """Returns the line of the running event loop; StoreError when the link is closed."""
        line = self._lines.get(asyncio.get_running_loop())
        return line if line is not None and not line.ended else self._new_line()

    async def close(self) -> None:
        """Ends the lines of all event loops; closing twice does nothing."""
        with self._lock:
            self._closed = True
            lines = list(self._lines.values())
        await asyncio.gather(*(line.close() for line in lines))

    def _new_line(self) -> HttpLine:
        with self._lock:
            if self._closed:
                raise closed(self._endpoint.url)
            _discard({loop: self._lines.pop(loop) for loop in list(self._lines) if loop.is_closed()})
            line = HttpLine(self._endpoint)
            self._lines[line.loop] = line
            return line


def checked_url(url: str) -> str:
    """Returns the address less its last slash; InvalidValue for what is none, or is more than that."""
    try:
        parts = URL(url)
        known = parts.scheme in ("http", "https") and parts.host
    except (TypeError, ValueError):
        known = None
    if not known:
        raise InvalidValue(f"url is {url!r}; give one such as http://127.0.0.1:4747")
    if parts.user is not None or parts.password is not None:
        raise InvalidValue("url has a user or a password in it, which no store's server asks for; give token")
    if "?" in url or "#" in url:
        raise InvalidValue(f"url is {url!r}; give it without what begins with ? or #")
    return url.rstrip("/")


def _discard(lines: _Lines) -> None:
    for line in list(lines.values()):
        line.discard()


def _trusting(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise InvalidValue(f"ca is {ca!r}, which cannot be used ({error}); give a PEM file") from None
