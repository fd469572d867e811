"""A resolved spec back to YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvidia_tao_deploy.spec.sections import NetworkSpec

SECRETS = ("encryption_key", "enc_key", "key")


def spec_tree(spec: NetworkSpec) -> dict[str, Any]:
    """Every typed key with its value, and the other keys that were given, as plain data."""
    return merged(spec._tree, spec.model_dump(mode="json", by_alias=True))


def spec_yaml(spec: NetworkSpec) -> str:
    """The tree as YAML with keys of encrypted models masked; it loads back to an equal spec but for those."""
    import yaml

    tree = spec_tree(spec)
    for name in SECRETS:
        if tree.get(name):
            tree[name] = "***"
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=False))


def merged(base: Any, over: Any) -> Any:
    """``over`` laid on ``base``: blocks are merged key by key, everything else is replaced; arguments stay as they are.

    Lists of blocks of equal length are merged element by element, so that typed and other keys of one element meet.
    """
    if isinstance(base, dict) and isinstance(over, dict):
        return {
            key: merged(base[key], over[key]) if key in base and key in over else over.get(key, base.get(key))
            for key in [*base, *(key for key in over if key not in base)]
        }
    if (
        isinstance(base, list)
        and isinstance(over, list)
        and len(base) == len(over)
        and all(isinstance(item, dict) for item in [*base, *over])
    ):
        return [merged(low, high) for low, high in zip(base, over, strict=True)]
    return over
