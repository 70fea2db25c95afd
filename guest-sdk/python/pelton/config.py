"""The ``config`` and ``secrets`` that ``workers.toml`` gives the handler."""

from __future__ import annotations

from typing import Optional, overload

from . import _host, _text


@overload
def get(key: str) -> Optional[str]: ...
@overload
def get(key: str, default: str) -> str: ...


def get(key: str, default: Optional[str] = None) -> Optional[str]:
    """The value of ``key``, or ``default`` if the handler was given none.

    Raises ``Transient`` if the host could not look it up.
    """
    _text.check("config key", key)
    value = _host.current().config_get(key)
    return default if value is None else value
