"""The third-party scripts of the pages."""

from __future__ import annotations

import json
from pathlib import Path

import airflow_training.plugins

VENDOR = Path(airflow_training.plugins.__file__).parent / "static" / "vendor"


def test_the_scripts_have_the_versions_in_package_json() -> None:
    named = json.loads((VENDOR / "package.json").read_text())["dependencies"]
    assert f"(v{named['uplot']})" in (VENDOR / "uplot.js").read_text()
    assert f'.push("{named["lit-html"]}")' in (VENDOR / "lit-html.js").read_text()
    assert {f"{name}.js" for name in named} == {file.name for file in VENDOR.glob("*.js")}
    assert {f"{name}.LICENSE" for name in named} == {file.name for file in VENDOR.glob("*.LICENSE")}
