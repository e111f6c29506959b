# SPDX-License-Identifier: Apache-2.0
"""Executes a notebook in its folder and fails if a cell does: execute_notebook.py NOTEBOOK [--write]"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

path = Path(sys.argv[1])
notebook = nbformat.read(path, as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
if "--write" in sys.argv:
    nbformat.write(notebook, path)
print(f"{path}: executed")
