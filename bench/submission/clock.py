"""Another time for code that waits for a date: so it shows while it is checked what it would do later.

What Python's modules `time` and `datetime` tell is moved; what libraries in C ask the system themselves is not
(`numpy.datetime64("now")`, dates of files).
"""

import contextlib
import datetime
import importlib
import time
from typing import Any

_CLOCKS = ("CLOCK_REALTIME", "CLOCK_REALTIME_COARSE", "CLOCK_TAI")
_BEFORE = ("pandas",)  # libraries in C that want the plain classes of `datetime` when they are imported


def shift_clock(seconds: float) -> None:
    """Moves the clock of this process, as Python tells it, by some seconds; for good."""
    for name in _BEFORE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _shift_time(seconds)
    _shift_dates()


def _shift_time(seconds: float) -> None:
    plain = {name: getattr(time, name) for name in ("time", "clock_gettime", "clock_gettime_ns", "asctime", "strftime")}
    moved = {getattr(time, name) for name in _CLOCKS if hasattr(time, name)}
    time.time = lambda: plain["time"]() + seconds
    time.time_ns = lambda: int(time.time() * 1e9)
    time.clock_gettime = lambda which: plain["clock_gettime"](which) + (seconds if which in moved else 0.0)
    time.clock_gettime_ns = lambda which: plain["clock_gettime_ns"](which) + (int(seconds * 1e9) if which in moved else 0)
    for name in ("localtime", "gmtime", "ctime"):
        told = getattr(time, name)
        setattr(time, name, lambda at=None, told=told: told(time.time() if at is None else at))
    time.asctime = lambda parts=None: plain["asctime"](time.localtime() if parts is None else parts)
    time.strftime = lambda form, parts=None: plain["strftime"](form, time.localtime() if parts is None else parts)


def _shift_dates() -> None:
    plain_date, plain_datetime = datetime.date, datetime.datetime

    class Alike(type):
        """What is made elsewhere counts as well."""

        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, plain_datetime if issubclass(cls, plain_datetime) else plain_date)

    class Day(plain_date, metaclass=Alike):
        __slots__ = ()

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(time.time())

    class Later(plain_datetime, metaclass=Alike):
        __slots__ = ()

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

        today = now

        @classmethod
        def utcnow(cls) -> Any:
            return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    datetime.datetime, datetime.date = Later, Day
