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


def home(address: str, name: str) -> str:
    """The address of a version: a folder of its name, or `dev` if it is not released.

    Without an address it is empty: the version switch then stays on its page.
    """
    folder = name if name in released_versions() else "dev"
    return f"{address}/{folder}/" if address else ""


def switcher(address: str) -> str:
    """The JSON of the version switch: the released versions and this one."""
    current, names = version("logitlab"), released_versions()
    titles = {} if current in names else {current: f"{current} (not released)"}
    titles |= {name: name for name in names}
    entries = [
        {"name": title, "version": name, "url": home(address, name)}
        for name, title in titles.items()
    ]
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
