"""Texts that others wrote, as a reply can hold them."""

from __future__ import annotations


def sendable(text: str) -> str:
    """Replace the halves of characters that JSON can name and UTF-8 cannot hold.

    >>> sendable("loss \\ud83d")
    'loss ?'
    """
    return text.encode(errors="replace").decode()
