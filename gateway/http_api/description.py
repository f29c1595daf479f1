"""The description of all requests as one page that loads nothing: deployments have no way out to a script's host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

Schema = Mapping[str, Any]

DESCRIPTION_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1rem; margin: 2.5rem 0 0.25rem; overflow-wrap: anywhere; }
h3 { font-size: 0.9rem; margin: 0.75rem 0 0; }
code { font-family: ui-monospace, monospace; font-size: 0.9em; }
table { border-collapse: collapse; margin: 0.25rem 0; }
td { padding: 0.1rem 1.5rem 0.1rem 0; vertical-align: top; }
p { margin: 0.25rem 0; white-space: pre-line; }
"""


def description_page(openapi: Schema, source: str) -> str:
    """HTML of an OpenAPI description; `source` is the address of the description itself."""
    title = escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    requests = "".join(
        _request(openapi, method, path, operation)
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f'<body><h1>{title}</h1><p>For programs: <a href="{escape(source)}">openapi.json</a></p>'
        f"{_credentials(openapi)}{requests}</body></html>"
    )


def _credentials(openapi: Schema) -> str:
    """The ways to authenticate; each request accepts any of them."""
    schemes = openapi.get("components", {}).get("securitySchemes", {}).values()
    rows = ((_way(one), one["description"], False) for one in schemes)
    return f"<h2>Credentials</h2>{_table(rows)}"


def _way(scheme: Schema) -> str:
    if scheme["type"] == "http":
        return f"Authorization: {scheme['scheme'].capitalize()}"
    return f"?{scheme['name']}="


def _request(openapi: Schema, method: str, path: str, operation: Schema) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>", _text(operation.get("description"))]
    if operation.get("security") == []:
        parts.append(_text("No credentials are needed."))
    if parameters := operation.get("parameters"):
        rows = (
            (one["name"], f"{one['in']}, {_kind(one['schema'])}", one.get("required")) for one in parameters
        )
        parts += ["<h3>Parameters</h3>", _table(rows)]
    if body := operation.get("requestBody"):
        parts += ["<h3>Body</h3>", _content(openapi, body)]
    # What FastAPI supposes of bad requests is not what they are answered.
    answers = [(status, answer) for status, answer in operation["responses"].items() if status != "422"]
    for status, answer in answers:
        parts += [f"<h3>Response {escape(status)}</h3>", _content(openapi, answer)]
    return "".join(parts)


def _content(openapi: Schema, holder: Schema) -> str:
    """The fields of a body or of a response, or only its content type."""
    parts = []
    for kind, content in holder.get("content", {}).items():
        schema = _resolved(openapi, content.get("schema", {}))
        parts.append(_text(kind) + _text(schema.get("description")) + _table(_fields(schema)))
    return "".join(parts)


def _fields(schema: Schema) -> Iterator[tuple[str, str, bool]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        about = f"{_kind(field)}. {field['description']}" if "description" in field else _kind(field)
        yield name, about, name in required


def _kind(schema: Schema) -> str:
    """A schema in a few words: `string`, `list of Message`, `integer or null`."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(map(_kind, choices))
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "any value"))


def _resolved(openapi: Schema, schema: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    found: Schema = openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _table(rows: Iterator[tuple[str, str, bool]]) -> str:
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(about)}{', required' if required else ''}</td></tr>"
        for name, about, required in rows
    )
    return f"<table>{cells}</table>" if cells else ""


def _text(text: str | None) -> str:
    return f"<p>{escape(text)}</p>" if text else ""
