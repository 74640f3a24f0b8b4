"""Files of the site that are made from others when the guide is built."""

import json
import re
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
SOFTMAX = HERE.parent / "src/logitlab/_app/explore/page/softmax.js"


def released_versions() -> list[str]:
    """The versions in the headings of the change log, newest first."""
    text = (HERE.parent / "CHANGELOG.md").read_text("utf-8")
    return re.findall(r"^## \[?(\d+(?:\.\d+)+)", text, re.MULTILINE)


def switcher(address: str) -> str:
    """The JSON of the version switch; each version is in a folder of its name at `address`."""
    current, released = version("logitlab"), released_versions()
    entries = [
        {"name": name, "version": name, "url": f"{address}/{name}/" if address else "/"}
        for name in released
    ]
    if current not in released:
        url = f"{address}/dev/" if address else "/"
        entries.insert(0, {"name": f"{current} (not released)", "version": current, "url": url})
    return json.dumps(entries, indent=1)


def landing_script() -> str:
    """The script of the landing page: the explorer's softmax and the slider, no modules.

    Browsers do not load modules from pages that are opened as files.
    """
    softmax = SOFTMAX.read_text("utf-8").replace("export function", "function")
    return f"(() => {{\n{softmax}\n{(HERE / 'landing.js').read_text('utf-8')}}})();\n"


def write(folder: Path, address: str) -> None:
    """Writes the files into the folder of the built pages."""
    (folder / "switcher.json").write_text(switcher(address), "utf-8")
    (folder / "_static" / "landing.js").write_text(landing_script(), "utf-8")
