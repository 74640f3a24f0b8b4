"""The command line as a whole: help, examples, completion, exit codes, output to terminals."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from logitlab._app import help as help_layout
from logitlab._app import manual
from logitlab._app.cli import app

pytestmark = pytest.mark.slow

GROUP = get_command(app)
COMMANDS = tuple(GROUP.commands)
PROGRAM = [sys.executable, "-c", "from logitlab._app import main; main()"]
METAVARS = {
    "LOGITS",
    "LABELS",
    "TOKENS",
    "TABLE",
    "CALIBRATOR",
    "MODEL",
    "FILE",
    "FILE:COLUMN",
    "FOLDER",
    "COLUMN",
    "NAME",
    "N",  # an integer
    "P",  # a probability or a fraction
    "X",  # another number
    "CHAR",
    "COMMAND",
    "ADDRESS",
    "MODULE:FUNCTION",
}


def run(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def help_text(*arguments):
    result = CliRunner().invoke(app, [*arguments, "-h"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.stdout


def sections(text):
    """The lines below each heading of a help text."""
    found, title = {}, ""
    for line in text.splitlines():
        if match := re.fullmatch(r"([A-Z][a-z ]*):", line):
            title = match[1]
        found.setdefault(title, []).append(line)
    return found


def test_root_help_shows_whole_summaries():
    """Each command is listed once, and no summary ends in an ellipsis."""
    text = help_text()
    listed = [name for names in help_layout.TOPICS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS)
    found = sections(text)
    for topic, names in help_layout.TOPICS.items():
        for name in names:
            assert any(re.match(rf"  {name} +[A-Z]", line) for line in found[topic]), name
    assert "..." not in text.replace("[ARGS]...", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text(command):
    """Each option and argument has a description beside or below its name."""
    found = sections(help_text(command))
    lines = found.get("Arguments", []) + found["Options"]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.match(r"  [-A-Z]", line):
            name = re.match(r"  (\S+(?: / \S+|, --\S+)?(?: [A-Z:]+(?= |$))?)", line)[0]
            assert line[len(name) :].strip() or following.startswith("        "), line


@pytest.mark.parametrize("command", COMMANDS)
def test_metavars(command):
    """Values have names of one style; the help shows no types of Python."""
    for param in GROUP.commands[command].params:
        if not getattr(param, "is_flag", False):
            assert param.metavar in METAVARS, param.name
    text = help_text(command)
    assert re.findall(r"<\w+|\bTEXT\b|\bINTEGER\b|\bFLOAT\b|\bPATH\b|\bDIR\b", text) == []
    for line in sections(text)["Options"]:
        if match := re.match(r"  (?:-\w, )?--?[\w-]+ ([A-Z:]+)(?: |$)", line):
            assert match[1] in METAVARS, line


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_and_files(command):
    """Each example, on one line of a terminal, and each file."""
    found = sections(help_text(command))
    examples = manual.MANUALS[command].examples
    assert found["Examples"][1:] == [f"  {example}" for example in examples]
    assert max(map(len, found["Examples"])) <= 78
    for file in manual.MANUALS[command].files:
        assert f"  {file} " in "\n".join(found["Files"])


def test_no_arguments_print_the_help():
    result = CliRunner().invoke(app, [], env={"COLUMNS": "80"})
    assert result.exit_code == 2
    assert "Commands:" not in result.output
    assert "Logits:" in result.output
    assert (
        result.output.replace("--help", "-h").strip() == help_text().replace("--help", "-h").strip()
    )


def test_version():
    status, stdout, _ = run("--version")
    assert status == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", stdout)


@pytest.fixture
def files(tmp_path, monkeypatch, no_figures):
    """The files of the examples."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200, 3)) * 3
    y = np.array([rng.choice(3, p=p) for p in np.exp(z) / np.exp(z).sum(1, keepdims=True)])
    np.save("logits.npy", z)
    np.save("logits2.npy", z / 2)
    np.save("labels.npy", y)
    np.save("new.npy", z[:20])
    np.savez("text.npz", logits=z, tokens=y)
    table = pd.DataFrame({"age": z[:, 0], "income": z[:, 1], "city": ["a", "b"] * 100})
    table.to_csv("new-customers.csv", index=False)
    table.assign(left=np.where(y == 0, "yes", "no")).to_csv("customers.csv", index=False)
    return tmp_path


def test_every_example_runs(files, monkeypatch):
    """In the order of the commands; the files that the manual names are written."""
    from logitlab._app.explore import server

    served = []
    monkeypatch.setattr(server, "serve", lambda *given: served.append(given))
    assert manual.MANUALS.keys() == set(COMMANDS)
    for command in COMMANDS:
        for example in manual.MANUALS[command].examples:
            program, *arguments = shlex.split(example)
            assert program == "logitlab"
            assert arguments[0] == command
            before = {*files.rglob("*")}
            status, _, stderr = run(*arguments)
            assert status == 0, (example, stderr)
            written = {path.name for path in {*files.rglob("*")} - before if path.is_file()}
            listed = {name.rpartition("/")[2] for name in manual.MANUALS[command].files}
            assert written <= listed or listed in ({"FILE"}, {"index.html"}), example
    assert len(served) == 2


WRITERS = {
    "report logits.npy -o out": "out/report.html",
    "report text.npz:logits --targets text.npz:tokens -o tokens": "tokens/report.html",
    "calibrate logits.npy --labels labels.npy --method temperature -o out": "out/report.html",
    "fit customers.csv --target left -o out": "out/model.safetensors",
    "predict model customers.csv -o out.csv": "out.csv",
    "sample logits.npy -o out.csv": "out.csv",
    "apply calibrator new.npy -o out.csv": "out.csv",
    "apply calibrator shards -o out": "out/0.npy",
    "explore --export out": "out/index.html",
    "check logitlab:softmax --law order --dtype float32 --html out.html": "out.html",
}


@pytest.fixture
def models(files):
    """A calibrator, a model, and a folder of shards."""
    assert run("calibrate", "logits.npy", "--labels", "labels.npy", "-o", "calibrator")[0] == 0
    assert run("fit", "customers.csv", "--target", "left", "-o", "model")[0] == 0
    os.mkdir("shards")
    for shard in range(2):
        np.save(f"shards/{shard}.npy", np.load("new.npy")[10 * shard : 10 * shard + 10])
    return files


def test_existing_outputs(models):
    """An error that names the file; --overwrite replaces the files and keeps others."""
    for command, file in WRITERS.items():
        arguments = command.split()
        path = models / file
        assert run(*arguments, "-q") == (0, "", ""), command
        first = path.read_bytes()
        path.write_bytes(b"old")
        status, stdout, stderr = run(*arguments)
        message = f"logitlab: {file}: the output file exists; add --overwrite to replace it, or "
        assert (status, stdout) == (2, ""), command
        assert stderr == f"{message}choose another output\n"
        assert path.read_bytes() == b"old"
        assert run(*arguments, "--overwrite", "-q") == (0, "", ""), command
        assert (path.read_bytes() == first) == (arguments[0] != "sample"), command
        folder = path.parent
        if folder != models:
            assert not any(other.name.startswith(".") for other in folder.iterdir())
            for other in sorted(folder.iterdir()):
                other.unlink()
            folder.rmdir()
        else:
            path.unlink()
    writes = {command for command, text in manual.MANUALS.items() if text.files}
    assert {command.split()[0] for command in WRITERS} == writes
    for name in COMMANDS:
        options = {option for param in GROUP.commands[name].params for option in param.opts}
        assert ("--overwrite" in options) == (name in writes), name


def test_other_files_in_a_folder_of_shards(models):
    """They would be shards of the output: an error even with --overwrite."""
    os.mkdir("out")
    np.save("out/2.npy", np.zeros((1, 3)))
    for options in ((), ("--overwrite",)):
        status, _, stderr = run("apply", "calibrator", "shards", "-o", "out", *options)
        assert status == 2
        assert "out: the output folder must have no other files than those of shards" in stderr
    assert os.listdir("out") == ["2.npy"]


def test_quiet(models):
    """Nothing but the JSON or the table that was asked for; errors are printed."""
    status, stdout, stderr = run("report", "logits.npy", "-o", "r", "--json", "-q")
    assert (status, stderr) == (0, "")
    assert json.loads(stdout)["rows"] == 200
    status, stdout, stderr = run(
        *["fit", "customers.csv", "--target", "left", "-o", "f", "--json", "-q"]
    )
    assert (status, stderr) == (0, "")
    assert json.loads(stdout)["fit"]
    status, stdout, stderr = run("apply", "calibrator", "new.npy", "-q")
    assert (status, stderr) == (0, "")
    assert len(stdout.splitlines()) == 21
    assert run("check", "numpy:exp", "--law", "sum", "-q") == (1, "", "")
    status, stdout, stderr = run("report", "none.npy", "-q")
    assert (status, stdout) == (2, "")
    assert stderr.startswith("logitlab: none.npy: no such file")


def completion(instruction, *words):
    """The answer of the program to a completion script of a shell."""
    environment = {
        **os.environ,
        "_LOGITLAB_COMPLETE": instruction,
        "COMP_WORDS": " ".join(["logitlab", *words]),
        "COMP_CWORD": str(len(words)),
    }
    # The name of the variable comes from that of the program.
    code = "import sys; sys.argv[0] = 'logitlab'; from logitlab._app import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout


def complete(*words):
    """What bash completes for the last word."""
    return completion("complete_bash", *words).split()


def test_completion():
    """Commands, options and choices; for files nothing, so that the shell completes them."""
    assert complete("re") == ["report"]
    assert complete("report", "--la") == ["--labels"]
    assert complete("calibrate", "z.npy", "--method", "te") == ["temperature"]
    assert complete("sample", "--order", "v") == ["vllm"]
    assert "order" in complete("check", "--law", "o")
    assert complete("check", "--dtype", "b") == ["bfloat16"]
    assert complete("check", "--array-library", "j") == ["jax"]
    for words in (("report", "lo"), ("fit", "cu"), ("report", "z.npy", "-o", "fo")):
        assert complete(*words) == [], words


def test_completion_script():
    """bash completes files where the program completes nothing, by `-o default`."""
    assert "--install-completion" in help_text()
    assert "complete -o default -F _logitlab_completion logitlab" in completion("source_bash")


POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")


@POSIX
def test_interrupt(tmp_path):
    """Ctrl-C: one line, status 130."""
    code = (
        "import sys, time\n"
        "from logitlab import _app\n"
        "from logitlab._app import cli\n"
        "def slow():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "cli.app.command('slow')(cli._with_error_messages(slow))\n"
        "sys.argv = ['logitlab', 'slow']\n"
        "_app.main()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert stderr == "logitlab: interrupted\n"
    assert process.returncode == 130


@POSIX
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_closed_pipe(tmp_path, options):
    """The end of the reader ends the command: no text on standard error, status 141."""
    np.save(tmp_path / "z.npy", np.zeros((50_000, 3)))
    command = [*PROGRAM, "sample", "z.npy", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == 141


def terminal_output(*arguments, **variables):
    """The output of a command whose standard output and error are a terminal, and its status."""
    import pty

    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **variables}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        if name not in variables:
            environment.pop(name, None)
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdin=child, stdout=child, stderr=child, env=environment
    )
    os.close(child)
    text = b""
    while True:
        try:
            part = os.read(parent, 1 << 16)
        except OSError:  # the end, on Linux
            break
        if not part:
            break
        text += part
    os.close(parent)
    return process.wait(timeout=60), text.decode()


CHECK = ("check", "logitlab:softmax", "--law", "order", "--dtype", "float32")


@POSIX
@pytest.mark.parametrize(
    ("variables", "has_codes"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False)],
)
def test_colour_on_a_terminal(variables, has_codes):
    """NO_COLOR: no escape codes at all."""
    status, text = terminal_output(*CHECK, **variables)
    assert status == 0
    assert ("\x1b[" in text) == has_codes
    assert "order" in text


@pytest.mark.parametrize(("variables", "has_codes"), [({}, False), ({"FORCE_COLOR": "1"}, True)])
def test_colour_in_a_file(variables, has_codes):
    """No escape codes, unless FORCE_COLOR asks for them."""
    environment = {**os.environ, "TERM": "xterm-256color"} | variables
    for name in {"NO_COLOR", "FORCE_COLOR"} - variables.keys():
        environment.pop(name, None)
    result = subprocess.run([*PROGRAM, *CHECK], env=environment, capture_output=True, text=True)
    assert result.returncode == 0
    assert ("\x1b[" in result.stdout) == has_codes
    assert result.stderr == ""


@POSIX
@pytest.mark.parametrize("options", [[], ["--no-progress"], ["-q"]])
def test_progress_bar(tmp_path, options, no_figures):
    """On a terminal only, and not with --no-progress or --quiet."""
    z, out = tmp_path / "z.npy", tmp_path / "out.csv"
    np.save(z, np.random.default_rng(0).standard_normal((300, 3)))
    np.save(tmp_path / "y.npy", np.arange(300) % 3)
    folder = str(tmp_path / "calibrator")
    labels = str(tmp_path / "y.npy")
    status, _, stderr = run("calibrate", z, "--labels", labels, "-o", folder, "-q")
    assert (status, stderr) == (0, "")
    arguments = ("apply", folder, str(z), "-o", str(out), *options)
    status, text = terminal_output(*arguments)
    assert status == 0
    assert ("calibrating" in text) == (not options)
    assert ("Written" in text) == (options != ["-q"])
    assert "\x1b" not in text or not options


def test_missing_package(monkeypatch):
    """One line that says what to install, status 2."""
    code = "import sys; sys.modules['typer'] = None\nfrom logitlab._app import main\nmain()\n"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == ("logitlab: typer is not installed; run: pip install 'logitlab[app]'\n")
