"""Bodies of requests and answers: how much of them is read, and how they are compressed."""

import asyncio
import re
import zlib

from aiohttp import ContentTypeError, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from raybolt.store.errors import InvalidValue
from raybolt.store.routes import REPEAT_HEADER

from .problems import HttpProblem

_FORBIDS = re.compile(r"q\s*=\s*0(\.0*)?")
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_PART_BYTES = 64 * 1024
_MAX_MEMBERS = 10_000
"""Each costs time of its own, however small it is."""
BODY_SECONDS = 60.0
"""How long a body may take, beside the time for what has come of it."""
_LEAST_BYTES_PER_SECOND = 1024
_SMALL_BYTES = 1024
"""What is shorter is not worth compressing."""


FINGERPRINT = web.RequestKey("fingerprint", int)
"""Where a request keeps what tells its body from others, once that was read."""


def note_body(request: web.Request, body: bytes) -> None:
    """Keeps the fingerprint of a named request's body: whoever repeats the name has to send the same."""
    if REPEAT_HEADER in request.headers:
        request[FINGERPRINT] = zlib.crc32(body)


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """Returns the body, unpacked. Refuses what is larger than ``max_bytes``, packed or unpacked."""
    try:
        body = await _received(request, max_bytes)
    except (HttpProcessingError, ConnectionError) as error:  # the latter: nobody is there to read the answer
        raise InvalidValue(f"the body is broken: {error}") from None
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise HttpProblem(415, InvalidValue(f"Content-Encoding is {encoding!r}; send gzip or none"))
    return _unzipped(body, max_bytes)


def check_media_type(request: web.Request, *allowed: str) -> str:
    """Returns the body's media type; refuses others, which also keeps other sites' forms out."""
    stated = request.headers.get(hdrs.CONTENT_TYPE)
    if stated in allowed:
        return stated
    try:
        kind = request.content_type
    except ContentTypeError:
        kind = ""
    if kind not in allowed:
        raise HttpProblem(415, InvalidValue(f"Content-Type is {kind!r}; send {' or '.join(allowed)}"))
    return kind


def reply(
    request: web.Request, body: bytes, content_type: str = "application/json", *, status: int = 200
) -> web.Response:
    """Returns the answer, compressed if that was asked for and is worth it."""
    response = web.Response(status=status, body=body, content_type=content_type)
    if len(body) > _SMALL_BYTES and accepts(request, "gzip", hdrs.ACCEPT_ENCODING):
        response.enable_compression(web.ContentCoding.gzip)
    return response


def accepts(request: web.Request, wanted: str, header: str = hdrs.ACCEPT) -> bool:
    """Whether the header names this, and not with the weight 0, which forbids it."""
    value = request.headers.get(header, "").lower()
    if wanted not in value:
        return False
    for part in value.split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        if name == wanted:
            return not any(_FORBIDS.fullmatch(each) for each in parameters)
    return False


async def _received(request: web.Request, max_bytes: int) -> bytes:
    content = request.content
    first = content.read_nowait()  # as nearly always, all of it is here
    if content.at_eof() and len(first) <= max_bytes:
        return first
    body = bytearray(first)  # a list of parts could take many times their bytes
    began = asyncio.get_running_loop().time()
    while len(body) <= max_bytes and not content.at_eof():
        try:
            async with asyncio.timeout_at(began + BODY_SECONDS + len(body) / _LEAST_BYTES_PER_SECOND):
                body += await content.readany()
        except TimeoutError:
            raise _too_slow(len(body)) from None
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return bytes(body)


def _unzipped(packed: bytes, max_bytes: int) -> bytes:
    """Unpacks gzip, which may be several members one behind the other (RFC 1952)."""
    body, rest = bytearray(), memoryview(packed)
    for _ in range(_MAX_MEMBERS):
        rest = rest[_unzip_member(rest, body, max_bytes) :]
        if not rest:
            return bytes(body)
    raise InvalidValue(f"the body is gzip of more than {_MAX_MEMBERS} members; send fewer, or it unpacked")


def _unzip_member(packed: memoryview, body: bytearray, max_bytes: int) -> int:
    """Appends the first member's content to the body; returns how many bytes it has, packed."""
    unpacker = zlib.decompressobj(_GZIP)
    end = 0
    while not unpacker.eof:
        if end >= len(packed):
            raise InvalidValue("the body is gzip that ends too early")
        # A part at a time, since whatever is given beyond the member's end is copied.
        part = packed[end : end + _GZIP_PART_BYTES]
        end += len(part)
        try:
            body += unpacker.decompress(part, max_bytes + 1 - len(body))
        except zlib.error as error:
            raise InvalidValue(f"the body is not gzip: {error}") from None
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return end - len(unpacker.unused_data)


def _too_slow(num_bytes: int) -> HttpProblem:
    return HttpProblem(
        408, InvalidValue(f"the body came too slowly: {num_bytes} bytes so far; send it again, or less of it")
    )


def _too_large(max_bytes: int) -> HttpProblem:
    return HttpProblem(
        413,
        InvalidValue(
            f"the body has more than {max_bytes} bytes; send less at a time, or serve with a larger limit"
        ),
    )
