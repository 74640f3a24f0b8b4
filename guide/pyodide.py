"""Adds the NumPy wheel to a folder of Pyodide's runtime: ``python pyodide.py FOLDER ADDRESS``.

The wheel is the one that ``pyodide-lock.json`` names; its SHA-256 is checked.
"""

import hashlib
import json
import sys
from pathlib import Path
from urllib.request import urlopen

folder, address = Path(sys.argv[1]), sys.argv[2]
numpy = json.loads((folder / "pyodide-lock.json").read_text("utf-8"))["packages"]["numpy"]
with urlopen(address + numpy["file_name"]) as response:
    wheel = response.read()
if hashlib.sha256(wheel).hexdigest() != numpy["sha256"]:
    sys.exit(f"{numpy['file_name']}: its SHA-256 differs from that in pyodide-lock.json")
(folder / numpy["file_name"]).write_bytes(wheel)
