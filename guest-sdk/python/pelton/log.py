"""Log lines, which the host keeps together with its own::

    from pelton import log

    log.info(f"drafted {len(lines)} lines")

The module that calls is the context of the line. What goes through the standard library's ``logging`` arrives as well, with its
level and with the logger's name as the context, and what is printed does as a line of standard output.
"""

from __future__ import annotations

import logging
import sys

from . import _host

TRACE = 5
"""The level of ``trace`` for the standard library's ``logging``, which has none of its own."""


def trace(message: object) -> None:
    """Each step, to follow the handler's way."""
    _write("trace", message)


def debug(message: object) -> None:
    """What helps to find a fault."""
    _write("debug", message)


def info(message: object) -> None:
    """What an operator may want to know."""
    _write("info", message)


def warn(message: object) -> None:
    """Something unexpected that the handler could cope with."""
    _write("warn", message)


def error(message: object) -> None:
    """Something went wrong."""
    _write("error", message)


def critical(message: object) -> None:
    """The handler cannot go on."""
    _write("critical", message)


def _write(level: _host.Level, message: object) -> None:
    caller = sys._getframe(2)
    _host.current().log(level, str(caller.f_globals.get("__name__", "")), str(message))


class ToHost(logging.Handler):
    """Brings what goes through the standard library's ``logging`` to the host."""

    def emit(self, record: logging.LogRecord) -> None:
        _host.current().log(_level(record.levelno), record.name, self.format(record))


def _level(number: int) -> _host.Level:
    if number >= logging.CRITICAL:
        return "critical"
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    if number >= logging.INFO:
        return "info"
    return "debug" if number >= logging.DEBUG else "trace"
