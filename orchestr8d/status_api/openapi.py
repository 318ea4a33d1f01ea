"""The OpenAPI document, made from the table of routes and from the very types that decode requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from orchestr8d.core.patterns import for_schema
from orchestr8d.status_api.respond import PROBLEM_TYPE, ProblemAnswer
from orchestr8d.status_api.route import Media, Nothing, Route

_REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_KEY_SCHEMA: Final = {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"}
_PROBLEM_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "always Bearer"},
    429: {"Retry-After": "seconds"},
    503: {"Retry-After": "seconds"},
}
_ABOUT: Final[Mapping[int, str]] = {
    400: "Bad JSON, fields or query parameters; `errors` lists all that is wrong",
    401: "No token, or one that is unknown, revoked or expired",
    403: "A foreign Host or Origin, or a token without the right",
    404: "There is no such thing",
    409: "The wrong state for this, or a key that is taken",
    410: "The cursor is older than what is kept",
    413: "The body is too large",
    415: "The body is of another type than what is taken",
    422: "Well-formed, but it cannot be",
    429: "The queue is full",
    503: "The daemon drains, or the store is busy or full",
}


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """OpenAPI 3.1 for all `routes`."""
    types = _types(routes)
    schemas, components = _in_dialect(msgspec.json.schema_components(types, ref_template=_REF))
    refs = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "orchestr8d", "version": version, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _types(routes: Sequence[Route]) -> list[Any]:
    """Every type that the document shows, once each."""
    found: dict[str, Any] = {repr(ProblemAnswer): ProblemAnswer}
    for route in routes:
        answers = [answer for status in route.answers for answer in route.answers_of(status)]
        shown: list[Any] = [answer for answer in answers if not isinstance(answer, Media)]
        shown += [field.type for field in msgspec.structs.fields(route.query)]
        if route.writes:
            shown.append(route.body)
        found |= {repr(one): one for one in shown}
    return list(found.values())


def _in_dialect(schema: Any) -> Any:
    """Schemas with patterns as JSON Schema has them."""
    if isinstance(schema, dict):
        return {
            name: for_schema(value) if name == "pattern" and isinstance(value, str) else _in_dialect(value)
            for name, value in schema.items()
        }
    return [_in_dialect(item) for item in schema] if isinstance(schema, list | tuple) else schema


def _operation(route: Route, refs: Mapping[str, Any]) -> dict[str, Any]:
    parts = [p for p in route.template.removeprefix("/api/v1").replace("{", "").replace("}", "").split("/") if p]
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *(re.sub(r"\W", "_", part) for part in parts)]),
        "summary": route.summary,
        "tags": [parts[0].partition(":")[0]],
        "parameters": _parameters(route, refs),
        "responses": _responses(route, refs),
    }
    if route.scope is None:
        operation["security"] = []
    else:
        operation["description"] = f"Needs the scope `{route.scope}`."
    if route.writes:
        content = {"application/json": {"schema": refs[repr(route.body)]}}
        if route.yaml:
            content["application/yaml"] = {"schema": {"type": "string"}}
        operation["requestBody"] = {"required": route.body_required, "content": content}
    return operation


def _parameters(route: Route, refs: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(route.template)
    ]
    if route.query is not Nothing:
        for field in msgspec.structs.fields(route.query):
            schema = _without_null(refs[repr(field.type)])
            found.append({"name": field.encode_name, "in": "query", "required": False, "schema": schema})
    if route.once:
        about = "the same key with the same body gets the first answer again; kept for 24 hours"
        found.append({"name": "Idempotency-Key", "in": "header", "description": about, "schema": _KEY_SCHEMA})
    found += [
        {"name": name, "in": "header", "description": about, "schema": {"type": "string"}}
        for name, about in route.request_headers.items()
    ]
    return found


def _without_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A parameter that is absent is absent: null is no value of a query."""
    if "anyOf" not in schema:
        return schema
    members = [member for member in schema["anyOf"] if member != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**members[0], **rest} if len(members) == 1 else {**rest, "anyOf": members}


def _responses(route: Route, refs: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in route.answers:
        about = HTTPStatus(status).phrase
        content: dict[str, Any] = {}
        as_json = []
        for answer in route.answers_of(status):
            if isinstance(answer, Media):
                schema = {} if answer.stream else {"type": "string"}
                about = answer.description
                content[answer.content_type.partition(";")[0]] = {"schema": schema}
            else:
                as_json.append(refs[repr(answer)])
        if as_json:
            content["application/json"] = {"schema": as_json[0] if len(as_json) == 1 else {"anyOf": as_json}}
        found[str(status)] = {"description": about, "content": content}
        headers = route.response_headers.get(status)
        if headers:
            found[str(status)]["headers"] = _headers(headers)
    for status in route.statuses():
        problem = {PROBLEM_TYPE: {"schema": refs[repr(ProblemAnswer)]}}
        found[str(status)] = {"description": _ABOUT[status], "content": problem}
        if status in _PROBLEM_HEADERS:
            found[str(status)]["headers"] = _headers(_PROBLEM_HEADERS[status])
    return found


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": about, "schema": {"type": "string"}} for name, about in headers.items()}
