"""The pages of the reference, made from the library: nothing public can be missing from them."""

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import logitlab

ROOT = Path(__file__).parent.parent

# Where a public name stands, by the module that defines it; another module gets its own heading.
SECTIONS = {
    "probabilities": "Probabilities",
    "sampling": "Sampling",
    "support": "Sampling",
    "sweep": "Sampling",
    "derivatives": "Derivatives",
    "losses": "Losses",
    "linear_losses": "Losses",
    "scores": "Scores",
    "divergences": "Scores",
    "reliability": "Calibration error",
    "smooth_calibration": "Calibration error",
    "decomposition": "Calibration error",
    "resampling": "Confidence intervals",
    "groups": "Confidence intervals",
    "calibration": "Calibrators",
    "decisions": "Decisions",
    "regression": "Softmax regression",
    "importance": "Softmax regression",
    "tables": "Softmax regression",
    "laws": "Conformance checks",
    "_backends": "Compiled kernels",
}


# The public modules beside logitlab itself, and the titles of their names.
MODULES = {
    "logitlab.plot": "Plots",
    "logitlab.torch": "torch modules",
    "logitlab.parallel": "Sharded classes and rows in torch",
    "logitlab.jax": "Sharded classes in JAX",
    "logitlab.transformers": "Sampling in transformers",
    "logitlab.vllm": "Sampling in vLLM",
    "logitlab.llama_cpp": "Sampling in llama-cpp-python",
    "logitlab.onnx": "ONNX models",
}


def namespaces() -> dict[str, list[str]]:
    """The public names of each public module that is there."""
    found = {"logitlab": list(logitlab.__all__)}
    for module in MODULES:
        if importlib.util.find_spec(module):
            found[module] = list(importlib.import_module(module).__all__)
    return found


def commands() -> dict[str, Any]:
    """The commands by their names, as typer has them."""
    from typer.main import get_command

    from logitlab._app.cli import app

    return dict(getattr(get_command(app), "commands", {}))


def _summary(value: Any) -> str:
    line = (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ").replace("|", r"\|")
    return re.sub(r":\w+:(`[^`]+`)", r"\1", re.sub(r":math:`([^`]+)`", r"$\1$", line))


def _section(module: str, name: str) -> str:
    if module != "logitlab":
        return MODULES[module]
    home = getattr(logitlab, name).__module__.split(".")[1]
    return SECTIONS.get(home, home.replace("_", " ").capitalize())


def _is_ours(name: str, member: Any) -> bool:
    """A method that is no other library's, nor there for its conventions alone."""
    conventions = ("get_params", "set_params", "forward", "extra_repr")
    public = not name.startswith("_") and name not in conventions
    return public and inspect.isfunction(member) and member.__module__.startswith("logitlab")


def _object(module: str, name: str) -> str:
    value = getattr(importlib.import_module(module), name)
    lines = [f"# {name}", "", "```{eval-rst}"]
    if inspect.isclass(value):
        own = [key for key, member in inspect.getmembers(value) if _is_ours(key, member)]
        lines += [f".. autoclass:: {module}.{name}"]
        lines += [f"   :members: {', '.join(own)}"] * bool(own)
    else:
        lines += [f".. autofunction:: {module}.{name}"]
    return "\n".join([*lines, "```", ""])


def _library() -> dict[str, str]:
    """One page for each name, and the page that lists them."""
    pages: dict[str, str] = {}
    sections: dict[str, list[str]] = {title: [] for title in SECTIONS.values()}
    for module, names in namespaces().items():
        for name in names:
            page = f"{module}.{name}.md"
            pages[page] = _object(module, name)
            value = getattr(importlib.import_module(module), name)
            row = f"| [`{name}`]({page}) | {_summary(value)} |"
            sections.setdefault(_section(module, name), []).append(row)
    lines = [
        "# Library",
        "",
        "Every public name. `import logitlab` loads NumPy and array-api-compat, no other library.",
    ]
    for title, rows in sections.items():
        if rows:
            lines += ["", f"## {title}", "", "| | |", "|---|---|", *rows]
    lines += ["", "```{toctree}", ":hidden:", "", *sorted(pages, key=str.lower), "```", ""]
    pages["library.md"] = "\n".join(lines)
    return pages


COMMAND_LINE = """# Command line

`pip install 'logitlab[app]'` installs the program `logitlab`; `logitlab explore` is part of
`logitlab[explore]`. `logitlab COMMAND --help` prints the section of a command on this page.

## Output files

Every command writes an output file only after everything is computed, and at once: an error leaves
the files of the last run as they are. An output file that exists is an error that names it;
`--overwrite` replaces it. In an output folder, files of other names are kept; a folder of shards
must have no others.

## Standard output and standard error

Results, summaries and the names of the files that were written are on standard output; errors,
progress bars and the warnings of `logitlab predict` are on standard error. `--quiet` (`-q`) leaves
out summaries, notes and progress bars; what `--json` or a missing `-o` asks for is printed all the
same. Progress bars are shown only where standard error is a terminal; `--no-progress` hides them.
Colours are printed only on a terminal. The environment variable `NO_COLOR=1` turns them off,
`FORCE_COLOR=1` turns them on in a file.

## Exit codes

{exit_codes}

## Shell completion

`logitlab --install-completion` installs the completion of commands, options and their choices for
bash, zsh, fish or PowerShell; it takes effect in the next shell. `logitlab --show-completion`
prints the script instead. File arguments complete to files.
"""


def _escaped(text: str) -> str:
    return re.sub(r"([*_|<\[\]])", r"\\\1", text)


def _default(param: Any) -> str:
    """The default of an option as it is written on the command line."""
    value = param.default
    if value is None or value is False:
        return ""
    if value is True:
        return f"`{param.opts[0]}`"
    return f"`{getattr(value, 'value', value)}`"


def _parameter(param: Any) -> str:
    names = ", ".join([*param.opts, *param.secondary_opts])
    return f"{names} {param.metavar or ''}".strip()


def _command(name: str, command: Any) -> str:
    """The section of a command: usage, description, arguments, options, files and examples."""
    from typer import Context

    from logitlab._app.help import arguments
    from logitlab._app.manual import MANUALS

    usage = " ".join([f"logitlab {name}", *command.collect_usage_pieces(Context(command))])
    parts = [f"## logitlab {name}", f"```text\n{usage}\n```", inspect.cleandoc(command.help)]
    rows = [f"| `{param.metavar}` | {_escaped(param.help)} | |" for param in arguments(command)]
    for param in command.params:
        if param not in arguments(command):
            required = " Required." if param.required else ""
            row = (
                f"| `{_parameter(param)}` | {_escaped(param.help)}{required} | {_default(param)} |"
            )
            rows.append(row)
    if rows:
        parts.append(
            "\n".join(["| argument or option | meaning | default |", "|---|---|---|", *rows])
        )
    manual = MANUALS[name]
    if manual.files:
        rows = [f"| `{file}` | {text} |" for file, text in manual.files.items()]
        parts.append("\n".join(["| file written | contents |", "|---|---|", *rows]))
    return "\n\n".join([*parts, "\n".join(["```sh", *manual.examples, "```"])])


def _command_line() -> str:
    """The page of the commands, made from their declarations."""
    from logitlab._app.manual import EXIT_CODES

    codes = [f"| {code} | {text} |" for code, text in EXIT_CODES.items()]
    intro = COMMAND_LINE.format(exit_codes="\n".join(["| code | meaning |", "|---|---|", *codes]))
    sections = [_command(name, command) for name, command in commands().items()]
    return "\n\n".join([intro.strip(), *sections]) + "\n"


def _included(path: Path) -> str:
    return f"```{{include}} ../../docs/{path.name}\n:relative-images:\n```\n"


def pages() -> dict[str, str]:
    """The name and the text of each page."""
    found = _library()
    found["command-line.md"] = _command_line()
    documents = sorted((ROOT / "docs").glob("*.md"))
    found |= {path.name: _included(path) for path in documents}
    entries = ["library.md", "command-line.md", "special-values.md"]
    found["index.md"] = "\n".join(
        [
            "# Reference",
            "",
            "Made from the library itself when the guide is built.",
            "",
            "```{toctree}",
            ":maxdepth: 1",
            "",
            *entries,
            *[path.name for path in documents],
            "```",
            "",
        ]
    )
    return found


def write(folder: Path) -> None:
    """Writes what has changed, and removes pages of names that are gone."""
    folder.mkdir(exist_ok=True)
    made = pages()
    for name, text in made.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    for path in folder.glob("logitlab*.md"):
        if path.name not in made:
            path.unlink()


def confirm(env: Any) -> None:
    """Every public name and every command has its place in the pages that were built."""
    documented = {name for name, *_ in env.domains["py"].get_objects()}
    wanted = {f"{module}.{name}" for module, names in namespaces().items() for name in names}
    headings = env.get_doctree("reference/command-line").astext()
    missing = sorted(wanted - documented) + [
        f"logitlab {name}" for name in commands() if f"logitlab {name}" not in headings
    ]
    if missing:
        raise RuntimeError(f"missing from the reference: {', '.join(missing)}")
