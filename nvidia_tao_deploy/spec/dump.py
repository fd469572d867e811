"""A resolved spec back to YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nvidia_tao_deploy.spec.trees import Tree, merged

if TYPE_CHECKING:
    from nvidia_tao_deploy.spec.sections import NetworkSpec

SECRETS = ("encryption_key", "enc_key", "key")


def spec_tree(spec: NetworkSpec) -> Tree:
    """Every typed key with its value, and the other keys that were given, as plain data."""
    return cast(Tree, merged(spec._tree, spec.model_dump(mode="json", by_alias=True)))


def spec_yaml(spec: NetworkSpec) -> str:
    """The tree as YAML with keys of encrypted models masked; it loads back to an equal spec but for those."""
    import yaml

    tree = spec_tree(spec)
    for name in SECRETS:
        if tree.get(name):
            tree[name] = "***"
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=False))


def set_values(spec: NetworkSpec) -> Tree:
    """The values of a spec that differ from the defaults or were set."""
    full, default = (item.model_dump(mode="json", by_alias=True) for item in (spec, type(spec)()))
    given = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return cast(Tree, merged(_difference(full, default), given))


def _difference(value: Tree, base: Tree) -> Tree:
    found: Tree = {}
    for key, item in value.items():
        other = base.get(key)
        if isinstance(item, dict) and isinstance(other, dict):
            below = _difference(item, other)
            if below:
                found[key] = below
        elif item != other:
            found[key] = item
    return found
