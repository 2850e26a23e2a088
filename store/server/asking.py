"""From a request to the arguments of a question, and from its answer to a response."""

from collections.abc import Mapping
from typing import Any, get_args

from aiohttp import web

from raybolt.store.errors import InvalidValue
from raybolt.store.paths import id_of_segment
from raybolt.store.routes import NEEDED, SEARCH, Argument, Route
from raybolt.store.row_frames import ROWS_TYPE, row_from_fields, unpack_rows
from raybolt.store.values import prepared
from raybolt.store.wire import Missing, checked_text, decoder, dump, error_fields, load, without_unset

from .bodies import check_media_type, note_body, read_body, reply
from .json_answers import encoder_for

JSON_TYPE = "application/json"


class RowReader:
    """Reads the spans of requests that add some."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    async def read(self, request: web.Request) -> dict[str, Any]:
        """Returns the rows; InvalidValue for what is no span."""
        kind = check_media_type(request, ROWS_TYPE, JSON_TYPE)
        body = await read_body(request, self._max_bytes)
        if kind == ROWS_TYPE:
            rows, _ = unpack_rows(body, check=True)
            return {"rows": rows}
        given = load(body, "the body")
        if not isinstance(given, dict) or set(given) != {"spans"} or not isinstance(given["spans"], list):
            raise InvalidValue('the body is not {"spans": [...]}')
        rows = [row_from_fields(each, f"spans[{index}]") for index, each in enumerate(given["spans"])]
        return {"rows": rows}


class ArgumentReader:
    """Reads the arguments of one other route's requests."""

    def __init__(self, route: Route, max_bytes: int) -> None:
        self._route = route
        self._max_bytes = max_bytes
        self._others = {name: each for name, each in route.takes.items() if not route.in_path(name)}
        self._decoders = {
            name: decoder(without_unset(each.kind), strict=True) for name, each in self._others.items()
        }

    async def read(self, request: web.Request) -> dict[str, Any]:
        """Returns the question's arguments; InvalidValue for what is missing, unknown or of another type."""
        in_path = _ids_in(request)
        if request.method == "GET":
            return in_path | self._decoded(_from_query(self._route, self._others, request))
        given: Any = {}
        if request.can_read_body or self._others:
            check_media_type(request, JSON_TYPE)
            body = await read_body(request, self._max_bytes)
            note_body(request, body)
            given = load(body or b"{}", "the body")
        if not isinstance(given, dict):
            raise InvalidValue(f"the body is no object; {_usage(self._route)}")
        return in_path | self._decoded(given)

    def _decoded(self, given: Mapping[str, Any]) -> dict[str, Any]:
        unknown = sorted(given.keys() - self._others.keys())
        if unknown:
            raise InvalidValue(f"{unknown[0]!a} is no argument; {_usage(self._route)}")
        return {name: self._argument(name, each, given) for name, each in self._others.items()}

    def _argument(self, name: str, argument: Argument, given: Mapping[str, Any]) -> Any:
        if name not in given:
            if argument.make is not None:
                return argument.make()
            if argument.default is NEEDED:
                raise InvalidValue(f"{name} is missing; {_usage(self._route)}")
            return argument.default
        value = self._decoders[name](given[name], name)
        if argument.maximum is not None and value > argument.maximum:
            raise InvalidValue(f"{name} is {value}; over HTTP give {argument.maximum} or less")
        if argument.kind is int and name == "limit" and self._route.page is None and value < 0:
            raise InvalidValue(f"{name} is {value}; give 0 or more")
        if name == "request":
            return prepared(value)
        if name == "requests":
            return [prepared(each) for each in value]
        return value


def answered(route: Route, request: web.Request, answer: Any) -> web.Response:
    """Returns the answer as JSON."""
    if answer is None and route.gives is not None:
        return reply(request, dump(error_fields(_missing(request))), status=404)
    return reply(request, encoder_for(request)(answer))


def _ids_in(request: web.Request) -> dict[str, str]:
    return {
        name: checked_text(id_of_segment(value, name), name) for name, value in request.match_info.items()
    }


def _missing(request: web.Request) -> Missing:
    ids = " and ".join(f"{name} {value!r}" for name, value in _ids_in(request).items())
    return Missing(f"there is none with {ids}; /docs lists others to ask for" if ids else "there is none yet")


def _from_query(route: Route, arguments: Mapping[str, Argument], request: web.Request) -> dict[str, Any]:
    given: dict[str, Any] = {}
    query = request.query
    for name in query:
        values = query.getall(name)
        kinds = get_args(arguments[name].kind) or (arguments[name].kind,) if name in arguments else (str,)
        if list[str] in kinds:
            given[name] = values
        elif len(values) > 1:
            raise InvalidValue(f"{name} is given {len(values)} times; {_usage(route)}")
        else:
            given[name] = _number(values[0], name) if int in kinds or float in kinds else values[0]
    return given


def _number(text: str, name: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise InvalidValue(f"{name} is {ascii(text)[:100]}; give a number")


def _usage(route: Route) -> str:
    others = [name for name in route.takes if not route.in_path(name)]
    search = f" (or POST {route.path}{SEARCH})" if route.search else ""
    takes = f" takes {', '.join(others)}" if others else " takes no arguments"
    return f"{route.method} {route.path}{search}{takes}"
