"""The page's answers without a browser: numbers, programs, refusals, the command."""

import errno
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.explore import view as view_module
from logitlab._app.explore.datasets import EXAMPLES, Library, from_file
from logitlab._app.explore.state import read
from logitlab._app.explore.view import view
from logitlab._app.io.source import UserError


@pytest.fixture(scope="module")
def library():
    return Library()


def seen(library, **given):
    """The answer as the page gets it, after a way through JSON."""
    answer = view(read(urlencode(given), library))
    return json.loads(json.dumps(answer, allow_nan=False))


def run(program):
    names = {}
    exec(program, names)
    return names


STATES = [
    {},
    {"T": "0"},
    {"T": "inf"},
    {"T": "-2"},
    {"shift": "10", "scale": "0.1"},
    {"k": "3", "p": "0.9", "minp": "0.05", "order": "llama.cpp", "T": "2"},
    {"edit": "1:7.5,0:-inf"},
    {"n": "1000", "seed": "7", "T": "1.5", "p": "0.8"},
    {"z": "0.5, -2, 1e3 3"},
]


@pytest.mark.parametrize("given", STATES, ids=str)
@pytest.mark.parametrize("key", ["five", "digits", "tail"])
def test_the_program_makes_what_is_on_the_screen(library, key, given):
    """Run as it stands, it gives the very numbers."""
    shown = seen(library, set=key, **given)
    names = run(shown["program"])
    place = shown["bars"]["place"]
    assert shown["bars"]["p"] == names["p"][place].tolist()
    if "n" in given:
        counts = np.bincount(names["draws"], minlength=len(names["p"]))
        assert shown["draws"]["counts"] == counts[place].tolist()
        assert shown["draws"]["stream"] == names["draws"][:300].tolist()


@pytest.mark.parametrize("key", EXAMPLES)
def test_every_example_opens(library, key):
    """With every part of the page, at a gentle and at an extreme setting."""
    for T in ("1", "-0.5", "0", "inf"):
        shown = seen(
            library, set=key, T=T, n="10", open="simplex,jacobian,precision,gradient,reliability"
        )
        assert shown["bars"]["sum"] == pytest.approx(1)
        assert ("refused" in shown["jacobian"]) == (T in ("0", "inf"))


@pytest.mark.parametrize(("T", "corner"), [("1", 2), ("-1", 0), ("inf", 2), ("-0.5", 0)])
def test_the_way_through_the_triangle(library, T, corner):
    """From the corner of the class that wins on the side of the sign of T to the centre."""
    shown = seen(library, z="1,2,4", T=T, open="simplex")["simplex"]
    assert len(shown["way"]) == 201
    assert shown["way"][0] == np.eye(3)[corner].tolist()
    np.testing.assert_allclose(shown["way"][-1], 1 / 3)
    assert shown["temperatures"][0] == 0
    assert shown["temperatures"][-1] == ("-inf" if T.startswith("-") else "inf")
    for t, point in zip(shown["temperatures"][1:], shown["marks"][1:], strict=True):
        np.testing.assert_allclose(point, logitlab.softmax([1, 2, 4], temperature=float(t)))


def test_many_classes_are_cut_and_the_rest_is_summed(library):
    """The largest are drawn, and what was dragged; the rest is one number."""
    z = library.get("tail").row(0)
    last = int(z.argmin())
    shown = seen(library, set="tail", edit=f"{last}:-5")["bars"]
    z[last] = -5
    p = logitlab.softmax(z)
    assert shown["place"] == [*np.argsort(-z)[:40], last]
    assert shown["rest"]["classes"] == len(z) - 41
    assert shown["rest"]["p"] == pytest.approx(1 - p[shown["place"]].sum(), rel=1e-9)
    assert shown["rank"][:3] == [1, 2, 3]


def test_shift_changes_nothing_and_scale_does(library):
    """The two numbers that the page shows for it."""
    shown = seen(library, shift="10", scale="2")["bars"]
    assert shown["shift_moves"] < 1e-15
    z = np.array([2.0, 1, 3, 5, 4])
    moved = np.abs(logitlab.softmax(2 * z) - logitlab.softmax(z)).max()
    assert shown["scale_moves"] == pytest.approx(moved)
    assert shown["before"] == logitlab.softmax(z).tolist()


def test_the_jacobian_and_its_row_sums(library):
    """Those of logitlab.jacobian, of the logits as they are on the screen."""
    shown = seen(library, set="digits", T="2", scale="0.5", open="jacobian,gradient")
    z = 0.5 * library.get("digits").row(0)
    whole = logitlab.jacobian(z, temperature=2)
    np.testing.assert_allclose(shown["jacobian"]["entries"], whole, rtol=1e-12)
    assert shown["jacobian"]["sums"] == [0] * 10
    assert shown["gradient"]["sum"] == 0
    label = int(library.get("digits").labels[0])
    y = np.eye(10)[label]
    gradient = (logitlab.softmax(z, temperature=2) - y) / 2
    np.testing.assert_allclose(shown["gradient"]["gradient"], gradient, atol=1e-15)


def test_where_the_formula_fails(library):
    """float32 overflows from logits of 89 on; a shift moves that point; logitlab never does."""

    def failing(**given):
        rows = seen(library, open="precision", **given)["precision"]["rows"]
        return {(row["type"], row["formula"]): sum(row["wrong"]) for row in rows}

    still, shifted = failing(), failing(shift="100")
    assert still["float32", "naive"] == 3
    assert shifted["float32", "naive"] == 7
    assert shifted["float64", "naive"] == 2
    assert not any(n for (_, formula), n in (still | shifted).items() if formula == "logitlab")


def test_the_diagram_moves_with_the_temperature(library):
    """Counts are those of the scaled logits; the best temperature is TemperatureScaling's."""
    rows = library.get("digits")
    z, y = np.concatenate(list(rows.source.read())).astype(float), rows.labels
    shown = seen(library, set="digits", T="2", open="reliability")["reliability"]
    curve = logitlab.reliability_curve(z / 2, y)
    assert shown["counts"] == curve.counts.tolist()
    best = logitlab.TemperatureScaling().fit(z, y).temperature_
    assert shown["best"] == pytest.approx(best)
    assert shown["loss"] == pytest.approx(logitlab.cross_entropy(z, y, temperature=2))


def waited(library, **given):
    for _ in range(100):
        shown = seen(library, **given)
        if "waiting" not in shown:
            return shown
        time.sleep(0.05)
    raise AssertionError("the pass over all rows does not end")


def test_rows_by_entropy_and_by_mistake(library):
    """Most certain, most uncertain, and the mistakes, the most confident first."""
    rows = library.get("digits")
    z = np.concatenate(list(rows.source.read())).astype(float)
    nats = logitlab.entropy(z)
    assert waited(library, set="digits", by="certain")["row"] == nats.argmin()
    assert waited(library, set="digits", by="uncertain")["row"] == nats.argmax()
    wrong = np.flatnonzero(z.argmax(1) != rows.labels)
    shown = waited(library, set="digits", by="mistake")
    assert shown["ranked"] == len(wrong)
    assert shown["row"] == wrong[logitlab.softmax(z[wrong]).max(1).argmax()]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, (50, 6)).astype(np.float32)
    np.save(folder / "z.npy", z)
    np.save(folder / "cube.npy", z.reshape(5, 10, 6))
    np.savez(folder / "z.npz", a=z, b=2 * z)
    np.save(folder / "p.npy", logitlab.softmax(z))
    np.save(folder / "y.npy", (z + rng.gumbel(0, 3, z.shape)).argmax(1))
    np.savetxt(folder / "z.csv", z, delimiter=",", header="a,b,c,d,e,f", comments="")
    return folder, z


@pytest.mark.parametrize("name", ["z.npy", "cube.npy", "z.npz:a", "z.csv", "p.npy"])
def test_files(files, name):
    """Rows by number, and a program that reads them."""
    folder, z = files
    labels = None if name == "cube.npy" else str(folder / "y.npy")
    library = Library(from_file(str(folder / name), labels, name == "p.npy"))
    shown = seen(library, row="17", T="2")
    np.testing.assert_allclose(
        shown["bars"]["p"], logitlab.softmax(z[17].astype(float), temperature=2), rtol=1e-5
    )
    assert shown["bars"]["p"] == run(shown["program"])["p"].tolist()
    assert library.titles["file"] == name
    assert ("np.load" in shown["program"]) == (name != "z.csv")
    assert shown["bars"]["names"] == list("abcdef" if name == "z.csv" else "012345")
    if labels:
        assert waited(library, by="mistake")["ranked"] > 0


def test_a_large_file_opens_at_once(tmp_path):
    """A sparse 2 GB file: neither opening it nor looking at a row reads it."""
    path = tmp_path / "large.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (500_000, 1000)}
        )
        file.truncate(file.tell() + 4 * 500_000 * 1000)
    code = (
        "import resource, sys, json\n"
        "from logitlab._app.explore.datasets import Library, from_file\n"
        "from logitlab._app.explore.state import read\n"
        "from logitlab._app.explore.view import view\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "library = Library(from_file(sys.argv[1], None, False))\n"
        "view(read('row=499999', library))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50_000  # KiB


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"T": "warm"}, "T is 'warm'"),
        ({"T": "nan"}, "T is nan"),
        ({"scale": "0"}, "scale is 0"),
        ({"shift": "inf"}, "shift is inf"),
        ({"p": "2"}, r"top_p must be in \(0, 1\], got 2.0"),
        ({"k": "0"}, "k is 0"),
        ({"row": "1"}, "row is 1; accepted: 0 to 0"),
        ({"edit": "9:1"}, "edit is 9; accepted: 0 to 4"),
        ({"edit": "1:x"}, "edit is 'x'"),
        ({"set": "none"}, "set is 'none'"),
        ({"by": "luck"}, "by is 'luck'"),
        ({"order": "mine"}, "order is 'mine'"),
        ({"z": " "}, "z has 0 logits"),
        ({"label": "5"}, "label is 5"),
        ({"n": "1000000"}, "n is 1000000"),
        ({"seed": "-1"}, "seed is -1"),
    ],
    ids=str,
)
def test_a_bad_address_gets_one_clear_line(library, given, message):
    """It names the setting, what it is and what is accepted."""
    with pytest.raises(ValueError, match=message):
        seen(library, **given)


@pytest.mark.parametrize("T", ["-1", "-inf", "-1e-9", "0", "1", "inf"])
def test_excluded_classes_break_no_order(library, T):
    """Excluded at T < 0 too, where all other small logits come first."""
    bars = seen(library, z="-inf 1 2 3 -inf inf", T=T)["bars"]
    bare = seen(library, z="-inf 1 2 3 -inf", T=T, p="0.6")["bars"]
    assert bars["ordered"]
    assert bars["reversed"] == T.startswith("-")
    assert bare["ordered"]
    assert bare["rank"] == ([4, 1, 2, 3, 4] if T.startswith("-") else [4, 3, 2, 1, 4])


def test_a_row_without_a_distribution_is_shown(library):
    """NaN probabilities, and a reason where something cannot be computed."""
    shown = seen(library, edit="0:-inf,1:-inf,2:-inf,3:-inf,4:-inf", n="5", open="gradient")
    assert shown["bars"]["p"] == [None] * 5
    assert "no distribution" in shown["draws"]["refused"]


@pytest.fixture(scope="module")
def server():
    command = [sys.executable, "-c", "from logitlab._app import main; main()", "explore"]
    process = subprocess.Popen(
        [*command, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    yield urlsplit(process.stdout.readline().strip()), process
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", ""), "Ctrl-C ends it cleanly"


def ask(server, path=None, method="GET", body=None, host=None, **headers):
    address, _ = server
    link = http.client.HTTPConnection("127.0.0.1", address.port, timeout=10)
    link.putrequest(method, address.path if path is None else path, skip_host=True)
    link.putheader("Host", host or address.netloc)
    for name, value in headers.items():
        link.putheader(name, value)
    if body is not None:
        link.putheader("Content-Length", str(len(body)))
    link.endheaders(body)
    answer = link.getresponse()
    text = answer.read().decode()
    link.close()
    return answer, text


def test_the_server_answers_its_own_page(server):
    """The page, its files and its numbers, under headers that keep others out."""
    address, _ = server
    assert address.hostname == "127.0.0.1"
    assert len(address.path.strip("/")) >= 43
    answer, text = ask(server)
    assert answer.status == 200
    assert "<title>logitlab explorer" in text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    for name in ("main.js", "style.css"):
        assert ask(server, address.path + name)[0].status == 200
    own = f"http://{address.netloc}"
    answer, text = ask(server, address.path + "view", "POST", b"T=2", Origin=own)
    shown = json.loads(text)
    assert shown["bars"]["p"] == logitlab.softmax([2.0, 1, 3, 5, 4], temperature=2).tolist()
    answer, text = ask(server, address.path + "view", "POST", b"T=x", Origin=own)
    assert (answer.status, json.loads(text)) == (400, {"error": "T is 'x'; accepted: a number"})


@pytest.mark.parametrize(
    "change",
    [
        {"host": "example.org"},
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1.example.org:{port}"},
        {"Origin": "http://example.org"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"path": "/"},
        {"path": "/wrong/"},
        {"path": "/wrong/view"},
        {"path": "/%2e%2e/"},
    ],
    ids=str,
)
def test_others_are_refused(server, change):
    """A foreign Host, a foreign Origin, no token or a wrong one: 403 and nothing more."""
    change = {name: value.format(port=server[0].port) for name, value in change.items()}
    for method, body in (("GET", None), ("POST", b"T=1")):
        answer, text = ask(server, method=method, body=body, **change)
        assert (answer.status, text) == (403, "refused\n")


@pytest.mark.parametrize(
    "name", ["page.html", "server.py", "../server.py", "%2e%2e%2fserver.py", "x.js"]
)
def test_no_other_file_is_served(server, name):
    """Only the scripts and the style of the page."""
    assert ask(server, server[0].path + name)[0].status == 404


def test_the_port_is_bound_to_loopback_alone(server):
    """Another address of the machine does not answer."""
    with socket.socket() as link:
        link.settimeout(2)
        assert link.connect_ex(("127.0.0.2", server[0].port)) == errno.ECONNREFUSED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.npy"], "nowhere.npy: no such file"),
        (["--labels", "y.npy"], "--labels and --probabilities need LOGITS"),
        (["thin.npy"], "thin.npy: logits must have a row and a class, got shape (3, 0)"),
        (["twice.csv"], "twice.csv: column names must be distinct, got 'a' twice"),
        (
            ["p.npy", "--probabilities"],
            "p.npy: row 70000: probabilities must sum to 1, got 2; omit --probabilities if these "
            "are logits",
        ),
    ],
)
def test_a_persons_mistake_gets_one_line(tmp_path, monkeypatch, arguments, message):
    """On standard error, with exit status 2, before the page opens."""
    monkeypatch.chdir(tmp_path)
    p = np.full((70_001, 4), 0.25)
    p[70_000] *= 2
    np.save("p.npy", p)
    np.save("thin.npy", p[:3, :0])
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n3,4\n")
    done = CliRunner().invoke(app, ["explore", "--no-browser", *arguments])
    assert done.exit_code == 2
    assert done.stderr == f"logitlab: {message}\n"


def test_a_taken_port_gets_one_line(server):
    """As any other mistake."""
    done = CliRunner().invoke(app, ["explore", "--no-browser", "--port", str(server[0].port)])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"logitlab: --port {server[0].port}: Address already in use")


def test_the_browser_is_told_by_a_private_file(monkeypatch):
    """The token stands in a file that only its owner can read, and not in an argument."""
    import os
    import webbrowser

    from logitlab._app.explore import server

    told = []
    monkeypatch.setattr(webbrowser, "open", told.append)
    with server._opened("http://127.0.0.1:1/secret/"):
        (path,) = (address.removeprefix("file://") for address in told)
        assert "secret" not in path
        assert "url=http://127.0.0.1:1/secret/" in Path(path).read_text()
        assert os.stat(os.path.dirname(path)).st_mode & 0o077 == 0
    assert not os.path.exists(path)


def test_plain_data():
    """NaN and infinities as JSON can hold them."""
    data = {"a": np.array([1.0, np.nan, np.inf]), "b": (np.int64(3), -np.inf, True)}
    assert view_module.json_values(data, infinity_as_text=True) == {
        "a": [1.0, None, "inf"],
        "b": [3, "-inf", True],
    }


def test_a_refusal_of_a_file_is_a_person_s_error(tmp_path):
    """Labels of the wrong length, as in the report."""
    np.save(tmp_path / "z.npy", np.zeros((3, 2)))
    np.save(tmp_path / "y.npy", np.zeros(4, int))
    with pytest.raises(UserError, match="the same number of rows"):
        from_file(str(tmp_path / "z.npy"), str(tmp_path / "y.npy"), False)
