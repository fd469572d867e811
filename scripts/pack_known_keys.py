"""Pack the complete key trees of the contracts folder into ``nvidia_tao_deploy/spec/known/<network>.json``.

Usage: ``python scripts/pack_known_keys.py CONTRACTS_FOLDER``

YAML networks (``schema/<network>.json``) become one nested object; a leaf is its type, ``?`` marks that null is
allowed, a list of blocks is ``[block]`` and a map of blocks ``{"{}": block}``. Protobuf networks
(``proto/<network>.json``) become ``{"roots", "messages", "enums"}`` where a field is
``"<number> [repeated|map <key type>] <type> [oneof <name>]"``.
Only what the validator needs is kept: no defaults, no ranges.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "nvidia_tao_deploy" / "spec" / "known"


def leaf_type(declared: str) -> str:
    """``optional[int]`` -> ``int?``; containers keep only what they hold when that is a scalar."""
    optional = declared.startswith("optional[")
    inner = declared[len("optional[") : -1] if optional else declared
    inner = inner.replace("dict[any,any]", "dict").replace("dict[str,any]", "dict").replace("list[any]", "list")
    return inner + ("?" if optional else "")


def pack_schema(flat: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The nested tree of one flat ``dotted.key -> {type, ...}`` table."""
    tree: dict[str, Any] = {}
    for dotted, entry in flat.items():
        node: Any = tree
        *parents, last = dotted.split(".")
        for part in parents:
            name, is_list, is_map = part.removesuffix("[]").removesuffix("{}"), part.endswith("[]"), part.endswith("{}")
            child = node.get(name)
            if is_list:
                if not isinstance(child, list):
                    child = node[name] = [{}]
                node = child[0]
            elif is_map:
                if not isinstance(child, dict):
                    child = node[name] = {"{}": {}}
                node = child["{}"]
            else:
                if not isinstance(child, dict):
                    child = node[name] = {}
                node = child
        if "group" in entry["type"] and "[group]" in entry["type"].replace("optional[group]", ""):
            node.setdefault(last, [{}])
        elif "group" in entry["type"]:
            node.setdefault(last, {})
        else:
            node[last] = leaf_type(entry["type"])
    return tree


def pack_proto(tables: dict[str, Any]) -> dict[str, Any]:
    """Messages, enums and roots of one protobuf network."""
    messages = {}
    for name, message in tables["messages"].items():
        fields = {}
        for field in message["fields"]:
            kind = field.get("type_name") or field["type"]
            if field["label"] == "map":
                text = f"{field['number']} map {field['map_key']} {field['map_value']}"
            elif field["label"] == "repeated":
                text = f"{field['number']} repeated {kind}"
            else:
                text = f"{field['number']} {kind}"
            if field.get("oneof"):
                text += f" oneof {field['oneof']}"
            fields[field["name"]] = text
        messages[name] = fields
    roots = tables.get("roots") or {"experiment": tables["root"]}
    enums = {name: enum["values"] for name, enum in tables.get("enums", {}).items()}
    return {"roots": list(roots.values()), "messages": messages, "enums": enums}


def main(contracts: Path) -> None:
    """Write every network's file."""
    OUT.mkdir(parents=True, exist_ok=True)
    jobs = [(path, pack_schema) for path in sorted((contracts / "schema").glob("*.json"))]
    jobs += [(path, pack_proto) for path in sorted((contracts / "proto").glob("*.json"))]
    for path, pack in jobs:
        packed = pack(json.loads(path.read_text()))
        (OUT / path.name).write_text(json.dumps(packed, separators=(",", ":")) + "\n")
        print(f"{path.stem}: {(OUT / path.name).stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
