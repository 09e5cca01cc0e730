"""Masks secrets in the log of a job, such as the passwords among its variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

MASK = "***"
"""Replaces a secret; it is Airflow's mask too."""

# Characters. Shorter lines of a secret, such as a brace in JSON, are in many logs.
_SHORTEST_LINE = 8
# Characters of a secret that is cut off at the end of the output: fewer do not reveal it. Airflow has the same minimum.
_SHORTEST_BEGINNING = 5


class Masks:
    """Masks secrets in a stream whose pieces may begin and end within one.

    A secret is found as it is, as quoted by a shell, JSON or Python, and line by line if it has several lines.

    Args:
        texts: The secrets.

    Example:
        >>> masks = Masks(["s3cr3t"])
        >>> masks.take(b"password: s3c"), masks.take(b"r3t, user: s3c"), masks.rest()
        (b'password: ', b'***, user: ', b's3c')
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        forms = {form.encode() for text in texts for form in _forms(text)}
        # Of two that begin at the same byte, the longer one is masked.
        self._forms = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms))) if forms else None
        self._held = b""

    def mask(self, text: str) -> str:
        """Mask a complete text."""
        if not self._pattern:
            return text
        return self._pattern.sub(MASK.encode(), text.encode(errors="surrogatepass")).decode(errors="surrogatepass")

    def take(self, piece: bytes) -> bytes:
        """Mask the next piece of the output; hold back an end that may be the beginning of a secret."""
        if not self._pattern:
            return piece
        output, self._held = self._held + piece, b""
        held_from = self._possible_beginning(output)
        shown, at = [], 0
        for match in self._pattern.finditer(output):
            if match.start() >= held_from:
                break
            shown += [output[at : match.start()], MASK.encode()]
            at = match.end()
        held_from = max(at, held_from)
        self._held = output[held_from:]
        return b"".join([*shown, output[at:held_from]])

    def rest(self) -> bytes:
        """Return what is held back, at the end of the output."""
        rest, self._held = self._held, b""
        return rest if len(rest) < _SHORTEST_BEGINNING else MASK.encode()

    def _possible_beginning(self, output: bytes) -> int:
        """Index from which the output may be the beginning of a secret; its length if there is none."""
        first = len(output)
        for form in self._forms:
            at = output.find(form[:1], max(0, len(output) - len(form) + 1))
            while 0 <= at < first:
                if form.startswith(output[at:]):
                    first = at
                    break
                at = output.find(form[:1], at + 1)
        return first


def _forms(text: str) -> Iterator[str]:
    lines = (line.strip() for line in text.splitlines())
    # Stripped: a secret that begins with a line feed would hold back the end of every line.
    for part in (text.strip(), *(line for line in lines if len(line) >= _SHORTEST_LINE)):
        if part:
            yield part
            # As shlex quotes it, as bash does in `set -x`, in JSON, and in a traceback or a printed dict of Python.
            yield part.replace("'", "'\"'\"'")
            yield part.replace("'", "'\\''")
            yield json.dumps(part)[1:-1]
            yield json.dumps(part, ensure_ascii=False)[1:-1]
            yield repr(part)[1:-1]
