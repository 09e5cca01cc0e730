"""Packages that need no index."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile


def wheel(folder: Path, name: str = "handed_over", version: str = "1.0") -> Path:
    """Make a package that prints its name when it is imported."""
    file = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with ZipFile(file, "w") as packed:
        packed.writestr(f"{name}.py", f"print({name.replace('_', ' ')!r})")
        packed.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")
    return file
