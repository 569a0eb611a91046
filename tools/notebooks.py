"""Make a notebook of every tutorial: `python tools/notebooks.py` writes `docs/tutorials/NAME.ipynb` from `NAME.md`.

A fenced Python block is a code cell, everything between two of them a text cell. Notebooks hold no output.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
_BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.M | re.S)


def notebook(text: str) -> dict[str, Any]:
    """Return the notebook of a tutorial, as its JSON values."""
    cells = []
    for place, part in enumerate(_BLOCK.split(text)):
        if not part.strip():
            continue
        code = place % 2 == 1
        name = hashlib.sha256(f"{place} {part}".encode()).hexdigest()[:8]
        cell: dict[str, Any] = {"id": name, "metadata": {}, "source": part.strip().splitlines(keepends=True)}
        more = {"cell_type": "code", "execution_count": None, "outputs": []} if code else {"cell_type": "markdown"}
        cells.append(more | cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def written(text: str) -> str:
    """Return the notebook's file."""
    return json.dumps(notebook(text), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for page in sorted(FOLDER.glob("*.md")):
        page.with_suffix(".ipynb").write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(page.with_suffix(".ipynb"))
