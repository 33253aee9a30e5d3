"""Notebooks run from top to bottom on a small sample and use nothing of ours but the risk model."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
OURS = {path.parent.name for path in FOLDER.parent.glob("*/__init__.py")}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(
    notebook: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(notebook))
    assert capsys.readouterr().out


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_parameters_and_imports_only_the_risk_model_of_ours(notebook: Path) -> None:
    source = notebook.read_text()
    assert 'tags=["parameters"]' in source
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported & OURS <= {"risk_model"}
