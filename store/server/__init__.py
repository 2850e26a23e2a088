"""A store over HTTP: the server that ``HttpStore``, curl and OpenTelemetry exporters talk to."""

from .serving import DEFAULT_PORT, StoreServer, serve

__all__ = ["DEFAULT_PORT", "StoreServer", "serve"]
