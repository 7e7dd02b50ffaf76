"""values.yaml, written from values.schema.json: names, defaults and reasons stand in one place."""

import json
import textwrap

WIDTH = 110
HEAD = "# Written from values.schema.json by `./dev manifests --write`: change it there.\n"


def resolve(schema, root):
    """The schema behind a $ref, or behind the one part of an allOf."""
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/definitions/")
        schema = {**root["definitions"][name], **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def defaults(schema, root):
    """The value that a user who says nothing gets."""
    schema = resolve(schema, root)
    if "default" in schema:
        return schema["default"]
    if "properties" not in schema:
        raise ValueError(f"no default and no properties: {schema}")
    return {name: defaults(child, root) for name, child in schema["properties"].items()}


def text(root):
    """The whole file."""
    lines = [HEAD]
    _section(root, root, 0, lines)
    return "".join(lines)


def _section(schema, root, indent, lines):
    pad = "  " * indent
    for name, child in schema["properties"].items():
        child = resolve(child, root)
        if name == "global":
            continue
        if indent == 0:
            lines.append("\n")
        if "description" in child:
            wrapped = textwrap.wrap(child["description"], WIDTH - len(pad) - 2, break_on_hyphens=False)
            lines.extend(f"{pad}# {line}\n" for line in wrapped)
        if "default" in child:
            # JSON is YAML.
            lines.append(f"{pad}{name}: {json.dumps(child['default'])}\n")
        else:
            lines.append(f"{pad}{name}:\n")
            _section(child, root, indent + 1, lines)
