"""Sizes and times in words, as Ollama writes them, so that scripts which cut its columns keep working. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

_SIZES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))
_FOREVER = timedelta(days=20 * 365)


def human_bytes(count: int) -> str:
    """Decimal units: '98 MB', '2.0 GB', '512 B'. From 10 up cut to a whole number; below, one decimal unless whole."""
    for unit, word in _SIZES:
        if count >= unit:
            value = count / unit
            if value >= 10 or count % unit == 0:
                return f"{int(value)} {word}"
            return f"{value:.1f} {word}"
    return f"{count} B"


def human_duration(span: timedelta) -> str:
    """A rough length of time: 'Less than a second' … 'About an hour' … '3 weeks' … '2 years'."""
    seconds = int(span.total_seconds())
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 14:
        return f"{hours // 24} days"
    if hours < 24 * 60:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{seconds // 3600 // 24 // 365} years"


def human_past(moment: datetime, now: datetime) -> str:
    """'20 minutes ago'."""
    return f"{human_duration(now - moment)} ago"


def human_until(moment: datetime, now: datetime) -> str:
    """When a loaded model goes: '4 minutes from now', 'Stopping...' once it is due, 'Forever' past twenty years."""
    span = moment - now
    if span <= timedelta(0):
        return "Stopping..."
    if span > _FOREVER:
        return "Forever"
    return f"{human_duration(span)} from now"
