"""Durations in a job description: `20h`, `1h30m`, `PT1H30M`, seconds."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
_NUMBER = r"\d+(?:\.\d+)?"
_WORDS = {"d": "d(?:ays?)?", "h": "h(?:ours?|rs?)?", "m": "m(?:in(?:ute)?s?)?", "s": "s(?:ec(?:ond)?s?)?"}
_FREE_FORM = re.compile(
    r"\s*".join(rf"(?:(?P<{unit}>{_NUMBER})\s*{word})?" for unit, word in _WORDS.items()), re.IGNORECASE
)
_ISO_8601 = re.compile(
    rf"P(?:(?P<d>{_NUMBER})D)?(?:T(?:(?P<h>{_NUMBER})H)?(?:(?P<m>{_NUMBER})M)?(?:(?P<s>{_NUMBER})S)?)?"
)


def read_duration(text: str | int) -> timedelta | None:
    """Parse a duration, as in `completion_time`.

    The formats are numbers with a unit (`20h`, `90m`, `1d`, `30 minutes`, `1h30m`), ISO 8601 up to days (`PT1H30M`),
    and a bare number of seconds.

    Returns:
        The duration; None if it cannot be parsed or is zero.

    >>> read_duration("1d 12h")
    datetime.timedelta(days=1, seconds=43200)
    """
    text = str(text).strip()
    if re.fullmatch(_NUMBER, text, re.ASCII):
        text += "s"
    found = _FREE_FORM.fullmatch(text) or _ISO_8601.fullmatch(text)
    if not found:
        return None
    try:
        return sum((float(n) * _UNITS[unit] for unit, n in found.groupdict().items() if n), timedelta()) or None
    except OverflowError:
        return None


def check_duration(text: str | int) -> str | int:
    """Return a duration as it is written; raises ValueError if it cannot be parsed, as it would then not be a limit.

    >>> check_duration("1h30m")
    '1h30m'
    """
    if read_duration(text) is None:
        raise ValueError(f"is not a time such as '20h', '1h30m', 'PT1H30M' or a number of seconds: {text!r}")
    return text
