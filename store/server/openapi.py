"""The server's description of itself, made from the table of routes: OpenAPI 3.1, and a page to read."""

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from html import escape
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from raybolt.store.routes import (
    ARROW_TYPE,
    BLOCK_PATH,
    CAPABILITIES_PATH,
    EXPORT_PATH,
    NEEDED,
    ROUTES,
    SEARCH,
    TRACES_PATH,
    Argument,
    Route,
)
from raybolt.store.row_frames import ROWS_TYPE
from raybolt.store.rows import SpanRow
from raybolt.store.types import GroupHandle, Span
from raybolt.store.wire import without_unset

_JSON = "application/json"
_PROTOBUF = "application/x-protobuf"
_OTHERS = (
    ("get", BLOCK_PATH, "A group's table as an Arrow stream.", ARROW_TYPE),
    ("get", CAPABILITIES_PATH, "What this store can do.", _JSON),
    ("get", EXPORT_PATH, "All that the folder keeps, as a ZIP archive of Parquet files.", "application/zip"),
    ("post", TRACES_PATH, "OTLP/HTTP traces, protobuf or JSON.", _JSON),
)
_PROBLEMS = {
    "400": "InvalidValue: a value is wrong; the message says which and what to give.",
    "401": "The token is missing or wrong.",
    "404": "UnknownRollout, UnknownAttempt, UnknownGroup, UnknownResources, or Missing.",
    "408": "The body came too slowly.",
    "409": "InvalidTransition: it has ended.",
    "413": "The body is too large.",
    "415": "The body's media type or encoding is none of those listed.",
    "422": "The Idempotency-Key named another body before.",
    "503": "StoreError: the store cannot do it now. StoreFull: no room; see Retry-After.",
}


@cache
def document() -> dict[str, Any]:
    """Returns the OpenAPI document."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, search=False)
        if route.search:
            paths[route.path + SEARCH] = {"post": _operation(route, schemas, search=True)}
    for method, path, summary, media in _OTHERS:
        paths[path] = {method: _other(path, summary, media)}
    schemas["Error"] = {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            }
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "raybolt store", "version": "1"},
        "servers": [{"url": ".", "description": "Where this document is, behind a proxy's prefix too."}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


@cache
def docs_page() -> str:
    """Returns the description as one HTML page that loads nothing."""
    rows = "".join(
        f"<tr><td><code>{route.method}</code></td><td><code>{escape(route.path)}</code></td>"
        f"<td>{escape(route.summary)}</td><td>{escape(', '.join(_shown_arguments(route)))}</td></tr>"
        for route in ROUTES
    )
    rows += "".join(
        f"<tr><td><code>{method.upper()}</code></td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(summary)}</td><td></td></tr>"
        for method, path, summary, _ in _OTHERS
    )
    problems = "".join(f"<li>{status}: {escape(text)}</li>" for status, text in _PROBLEMS.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>raybolt store</title>'
        "<style>body{font:15px/1.5 sans-serif;margin:2em;max-width:75em}td,th{text-align:left;"
        "padding:.3em .8em;vertical-align:top;border-top:1px solid #ccc}table{border-collapse:collapse}"
        "</style><h1>raybolt store</h1><p>Arguments that are not in the path stand in the query of a GET "
        f"and in the JSON body of all others; a GET with filters can also be a POST to its path + {SEARCH}. "
        'A star marks what is needed. All of it as <a href="openapi.json">OpenAPI 3.1</a>.</p>'
        f"<table><tr><th></th><th>path</th><th></th><th>arguments</th></tr>{rows}</table>"
        f"<h2>Errors</h2><p>JSON: <code>{{&quot;error&quot;: {{&quot;type&quot;, &quot;message&quot;}}}}"
        f"</code></p><ul>{problems}</ul></html>"
    )


def _shown_arguments(route: Route) -> list[str]:
    return [
        name + ("*" if _is_needed(argument) else "")
        for name, argument in route.takes.items()
        if not route.in_path(name)
    ]


def _is_needed(argument: Argument) -> bool:
    return argument.default is NEEDED and argument.make is None


def _operation(route: Route, schemas: dict[str, Any], *, search: bool) -> dict[str, Any]:
    in_query = route.method == "GET" and not search
    others = {name: each for name, each in route.takes.items() if not route.in_path(name)}
    operation: dict[str, Any] = {
        "operationId": route.operation + ("_search" if search else ""),
        "summary": route.summary,
        "parameters": [_path_parameter(name) for name in route.takes if route.in_path(name)],
        "responses": {"200": _answer(route, schemas)} | _problem_responses(),
    }
    if in_query:
        operation["parameters"] += [
            {"name": name, "in": "query", "schema": _query_schema(each, schemas)}
            for name, each in others.items()
        ]
    elif others:
        operation["requestBody"] = {"required": True, "content": _request_content(route, others, schemas)}
    return operation


def _other(path: str, summary: str, media: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": path.rsplit("/", 1)[1],
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {media: {}}}} | _problem_responses(),
    }
    if "{group_id}" in path:
        operation["parameters"] = [
            _path_parameter("group_id"),
            {"name": "seal", "in": "query", "schema": {"type": "string"}},
        ]
    if path == TRACES_PATH:
        operation["requestBody"] = {"required": True, "content": {_PROTOBUF: {}, _JSON: {}}}
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    shown = "Anything but letters, digits and ._- is safest as ~ and the base64url of the whole id."
    schema = {"type": "string"}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": shown}


def _problem_responses() -> dict[str, Any]:
    content = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": text, "content": content} for status, text in _PROBLEMS.items()}


def _request_content(route: Route, arguments: dict[str, Argument], schemas: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": "object",
        "properties": {name: _argument_schema(each, schemas) for name, each in arguments.items()},
        "additionalProperties": False,
    }
    needed = [name for name, each in arguments.items() if _is_needed(each)]
    if needed:
        body["required"] = needed
    packed: dict[str, Any] = {ROWS_TYPE: {}} if route.operation == "add_rows" else {}
    return {_JSON: {"schema": body}} | packed


def _answer(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "null"} if route.gives is None else _schema(route.gives, schemas)
    packed: dict[str, Any] = {}
    if route.page is not None:
        following = {"type": ["integer", "null"]}
        schema = {"type": "object", "properties": {"items": schema, "next_offset": following}}
    if route.operation == "rows":
        packed = {ROWS_TYPE: {}}
    return {"description": "OK", "content": {_JSON: {"schema": schema}} | packed}


def _argument_schema(argument: Argument, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = dict(_schema(without_unset(argument.kind), schemas))
    if argument.maximum is not None:
        schema["maximum"] = argument.maximum
    return schema


def _query_schema(argument: Argument, schemas: dict[str, Any]) -> dict[str, Any]:
    """As above, less null: in a query, absence says that."""
    kinds = [each for each in get_args(argument.kind) if each is not NoneType]
    if get_origin(argument.kind) in (Union, UnionType) and len(kinds) == 1:
        argument = Argument(kinds[0], argument.default, maximum=argument.maximum)
    return _argument_schema(argument, schemas)


_PLAIN: dict[Any, dict[str, Any]] = {
    Any: {},
    str: {"type": "string"},
    int: {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
}


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(each, schemas) for each in arguments]}
    if origin is tuple and arguments[-1] is not Ellipsis:
        items = [_schema(each, schemas) for each in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in (list, tuple):
        return {"type": "array", "items": _schema(arguments[0], schemas)}
    if kind is SpanRow or is_dataclass(kind):
        return _record(Span if kind is SpanRow else kind, schemas)
    return {"type": "object"}


def _record(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in schemas:
        schemas[name] = {}  # before its fields, which may name it
        hints = get_type_hints(kind)
        properties = {
            each.name: _schema(hints[each.name], schemas) for each in fields(kind) if each.name != "ref"
        }
        if kind is GroupHandle:
            properties["seal"] = {"type": "string", "description": "For the block: as it was sealed."}
        if kind is Span:
            properties["arrays"] = {"type": "object", "description": "By attribute: dtype and values."}
        schemas[name] = {
            "type": "object",
            "properties": properties,
            "required": [
                each.name
                for each in fields(kind)
                if each.default is MISSING and each.default_factory is MISSING and each.name != "ref"
            ],
        }
    return {"$ref": f"#/components/schemas/{name}"}
