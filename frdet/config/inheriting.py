"""What a config with a ``_base_`` has to set to become another config."""

from collections.abc import Mapping
from typing import Any

from frdet.config.text import as_code


def changes(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a config sets to turn its base into ``wanted``: as few as possible, and lists as a whole.

    Keys of the base that ``wanted`` does not have can be dropped inside dicts only, by ``_delete_``.
    """
    found: dict[str, Any] = {}
    for key, value in wanted.items():
        if key in base and as_code(base[key]) == as_code(value):
            continue
        old = base.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and old.keys() <= value.keys():
            found[key] = changes(old, value)
        elif isinstance(value, Mapping) and key in base:
            found[key] = {'_delete_': True, **value}
        else:
            found[key] = value
    return found
