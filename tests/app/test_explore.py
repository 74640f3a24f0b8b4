"""The explorer without a browser: values, Python code, errors, the server, the command."""

import asyncio
import errno
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
import uvicorn
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.explore import server as server_module
from logitlab._app.explore.datasets import EXAMPLES, Datasets, read_dataset
from logitlab._app.explore.server import Guard
from logitlab._app.explore.state import parse_state
from logitlab._app.explore.view import view
from logitlab._app.io.json_values import json_values
from logitlab._app.io.source import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def datasets():
    return Datasets()


def get_view(datasets, **settings):
    """The values as the page receives them, converted to JSON and back."""
    answer = view(parse_state(urlencode(settings), datasets))
    return json.loads(json.dumps(answer, allow_nan=False))


def run(code):
    names = {}
    exec(code, names)
    return names


STAGES = {
    "k": ("2", {"top_k": 2}),
    "p": ("0.6", {"top_p": 0.6}),
    "minp": ("0.2", {"min_p": 0.2}),
    "typical": ("0.5", {"typical_p": 0.5}),
    "epsilon": ("0.1", {"epsilon": 0.1}),
    "eta": ("0.3", {"eta": 0.3}),
    "nsigma": ("1", {"top_n_sigma": 1.0}),
    "topa": ("0.3", {"top_a": 0.3}),
    "xtc": ("0.1", {"xtc_probability": 1.0, "xtc_threshold": 0.1}),
}
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
    *({name: value, "T": "0.7", "n": "100"} for name, (value, _) in STAGES.items()),
    {"dynatemp": "0.5", "exponent": "2", "typical": "0.9", "order": "llama.cpp", "n": "10"},
    {"dynatemp": "0.5", "T": "inf", "nsigma": "inf"},
]


@pytest.mark.parametrize("order", logitlab.sampling.ORDERS)
@pytest.mark.parametrize("stage", STAGES)
def test_stages(datasets, stage, order):
    """The classes of logitlab.truncate, and their probabilities."""
    value, settings = STAGES[stage]
    z = np.array([2.0, 1, 3, 5, 4])
    bars = get_view(datasets, set="five", T="1.5", order=order, **{stage: value})["bars"]
    expected = logitlab.truncate(z, temperature=1.5, order=order, **settings)
    assert bars["removed"] == (expected == -np.inf).tolist()
    assert any(bars["removed"])
    assert bars["n_kept"] == bars["removed"].count(False)
    assert bars["p"] == logitlab.softmax(expected, temperature=1.5).tolist()


def test_dynamic_temperature(datasets):
    """The probabilities that samples have; the temperature of the row is shown."""
    z = np.array([2.0, 1, 3, 5, 4])
    shown = get_view(datasets, set="five", T="1.5", dynatemp="1", exponent="2", open="jacobian")
    token, log_prob = logitlab.sample_with_log_prob(
        z, 500, rng=0, temperature=1.5, dynatemp_range=1.0, dynatemp_exponent=2.0
    )
    np.testing.assert_allclose(np.log(shown["bars"]["p"])[token], log_prob, rtol=1e-12)
    t = shown["bars"]["temperature"]
    np.testing.assert_allclose(logitlab.softmax(z, temperature=t), shown["bars"]["p"])
    assert 0.5 < t < 2.5
    assert t != 1.5
    assert "dynamic temperature" in shown["code"]
    assert shown["jacobian"]["bound"] == 0.25 / t
    assert "dynatemp_exponent" not in get_view(datasets, exponent="2")["code"]


@pytest.mark.parametrize("settings", STATES, ids=str)
@pytest.mark.parametrize("key", ["five", "digits", "tail"])
def test_code_computes_the_values_shown(datasets, key, settings):
    """The code computes the same numbers, bit for bit."""
    shown = get_view(datasets, set=key, **settings)
    names = run(shown["code"])
    indices = shown["bars"]["indices"]
    assert shown["bars"]["p"] == names["p"][indices].tolist()
    if "n" in settings:
        counts = np.bincount(names["samples"], minlength=len(names["p"]))
        assert shown["samples"]["counts"] == counts[indices].tolist()
        assert shown["samples"]["first"] == names["samples"][:300].tolist()


@pytest.mark.parametrize("key", EXAMPLES)
def test_examples(datasets, key):
    """Every panel is computed, at moderate and at extreme temperatures."""
    for T in ("1", "-0.5", "0", "inf"):
        shown = get_view(
            datasets, set=key, T=T, n="10", open="simplex,jacobian,precision,gradient,reliability"
        )
        assert shown["bars"]["sum"] == pytest.approx(1)
        assert ("unavailable" in shown["jacobian"]) == (T in ("0", "inf"))


@pytest.mark.parametrize(("T", "corner"), [("1", 2), ("-1", 0), ("inf", 2), ("-0.5", 0)])
def test_temperature_path(datasets, T, corner):
    """From the corner of the most probable class to the centre."""
    shown = get_view(datasets, z="1,2,4", T=T, open="simplex")["simplex"]
    assert len(shown["path"]) == 201
    assert shown["path"][0] == np.eye(3)[corner].tolist()
    np.testing.assert_allclose(shown["path"][-1], 1 / 3)
    assert shown["temperatures"][0] == 0
    assert shown["temperatures"][-1] == ("-inf" if T.startswith("-") else "inf")
    for t, point in zip(shown["temperatures"][1:], shown["marks"][1:], strict=True):
        np.testing.assert_allclose(point, logitlab.softmax([1, 2, 4], temperature=float(t)))


def test_many_classes(datasets):
    """The most probable classes and edited ones are shown; the others are summed."""
    z = datasets.get("tail").row(0)
    last = int(z.argmin())
    shown = get_view(datasets, set="tail", edit=f"{last}:-5")["bars"]
    z[last] = -5
    p = logitlab.softmax(z)
    assert shown["indices"] == [*np.argsort(-z)[:40], last]
    assert shown["omitted"]["classes"] == len(z) - 41
    assert shown["omitted"]["p"] == pytest.approx(1 - p[shown["indices"]].sum(), rel=1e-9)
    assert shown["rank"][:3] == [1, 2, 3]


def test_effects_of_shift_and_scale(datasets):
    """A shift changes no probability, a scale does."""
    shown = get_view(datasets, shift="10", scale="2")["bars"]
    assert shown["shift_change"] < 1e-15
    z = np.array([2.0, 1, 3, 5, 4])
    change = np.abs(logitlab.softmax(2 * z) - logitlab.softmax(z)).max()
    assert shown["scale_change"] == pytest.approx(change)
    assert shown["original_p"] == logitlab.softmax(z).tolist()


def test_jacobian_and_gradient(datasets):
    """Equal to logitlab.jacobian and (p - y)/T of the logits shown."""
    shown = get_view(datasets, set="digits", T="2", scale="0.5", open="jacobian,gradient")
    z = 0.5 * datasets.get("digits").row(0)
    expected = logitlab.jacobian(z, temperature=2)
    np.testing.assert_allclose(shown["jacobian"]["entries"], expected, rtol=1e-12)
    assert shown["jacobian"]["sums"] == [0] * 10
    assert shown["gradient"]["sum"] == 0
    label = int(datasets.get("digits").labels[0])
    y = np.eye(10)[label]
    gradient = (logitlab.softmax(z, temperature=2) - y) / 2
    np.testing.assert_allclose(shown["gradient"]["gradient"], gradient, atol=1e-15)


def test_floating_point_errors(datasets):
    """The naive formula overflows in float32 for logits >= 89, logitlab never does."""

    def n_wrong(**settings):
        rows = get_view(datasets, open="precision", **settings)["precision"]["rows"]
        return {(row["type"], row["formula"]): sum(row["wrong"]) for row in rows}

    unshifted, shifted = n_wrong(), n_wrong(shift="100")
    assert unshifted["float32", "naive"] == 3
    assert shifted["float32", "naive"] == 7
    assert shifted["float64", "naive"] == 2
    assert not any(n for (_, formula), n in (unshifted | shifted).items() if formula == "logitlab")


def test_reliability(datasets):
    """Equal to logitlab.reliability_curve, TemperatureScaling and cross_entropy."""
    rows = datasets.get("digits")
    z, y = np.concatenate(list(rows.source.read())).astype(float), rows.labels
    shown = get_view(datasets, set="digits", T="2", open="reliability")["reliability"]
    curve = logitlab.reliability_curve(z / 2, y)
    assert shown["counts"] == curve.counts.tolist()
    best = logitlab.TemperatureScaling().fit(z, y).temperature_
    assert shown["best_temperature"] == pytest.approx(best)
    assert shown["loss"] == pytest.approx(logitlab.cross_entropy(z, y, temperature=2))


def wait_for_view(datasets, **settings):
    for _ in range(100):
        shown = get_view(datasets, **settings)
        if "progress" not in shown:
            return shown
        time.sleep(0.05)
    raise AssertionError("the pass over all rows must end within 5 s")


def test_orders_of_rows(datasets):
    """By entropy, both ways; misclassified rows, the most confident first."""
    rows = datasets.get("digits")
    z = np.concatenate(list(rows.source.read())).astype(float)
    nats = logitlab.entropy(z)
    assert wait_for_view(datasets, set="digits", by="certain")["row"] == nats.argmin()
    assert wait_for_view(datasets, set="digits", by="uncertain")["row"] == nats.argmax()
    wrong = np.flatnonzero(z.argmax(1) != rows.labels)
    shown = wait_for_view(datasets, set="digits", by="mistake")
    assert shown["n_ranked"] == len(wrong)
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
    """Values of a row, and code that reads it from the file."""
    folder, z = files
    labels = None if name == "cube.npy" else str(folder / "y.npy")
    datasets = Datasets(read_dataset(str(folder / name), labels, name == "p.npy"))
    shown = get_view(datasets, row="17", T="2")
    np.testing.assert_allclose(
        shown["bars"]["p"], logitlab.softmax(z[17].astype(float), temperature=2), rtol=1e-5
    )
    assert shown["bars"]["p"] == run(shown["code"])["p"].tolist()
    assert datasets.titles["file"] == name
    assert ("np.load" in shown["code"]) == (name != "z.csv")
    assert shown["bars"]["names"] == list("abcdef" if name == "z.csv" else "012345")
    if labels:
        assert wait_for_view(datasets, by="mistake")["n_ranked"] > 0


def test_large_file_is_not_read(tmp_path):
    """Opening a sparse file of 2 GB and showing a row need little memory."""
    path = tmp_path / "large.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (500_000, 1000)}
        )
        file.truncate(file.tell() + 4 * 500_000 * 1000)
    code = (
        "import resource, sys, json\n"
        "from logitlab._app.explore.datasets import Datasets, read_dataset\n"
        "from logitlab._app.explore.state import parse_state\n"
        "from logitlab._app.explore.view import view\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "datasets = Datasets(read_dataset(sys.argv[1], None, False))\n"
        "view(parse_state('row=499999', datasets))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 50_000  # KiB


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"T": "warm"}, "T must be a number, got 'warm'"),
        ({"T": "nan"}, "T must be a number, got nan"),
        ({"scale": "0"}, "scale must be > 0, got 0"),
        ({"shift": "inf"}, "shift must be finite, got inf"),
        ({"p": "2"}, r"top_p must be in \(0, 1\], got 2.0"),
        ({"k": "0"}, "k must be >= 1, got 0"),
        ({"typical": "0"}, r"typical_p must be in \(0, 1\], got 0.0"),
        ({"xtc": "2"}, r"xtc_threshold must be in \[0, 1\], got 2.0"),
        ({"eta": "x"}, "eta must be a number, got 'x'"),
        ({"T": "-1", "dynatemp": "1"}, "temperature must be >= 0 if dynatemp_range > 0, got -1.0"),
        ({"row": "1"}, "row must be <= 0, got 1"),
        ({"edit": "9:1"}, "edit must be <= 4, got 9"),
        ({"edit": "1:x"}, "edit must be a number, got 'x'"),
        ({"set": "none"}, "set must be one of 'five', .*, got 'none'"),
        ({"by": "luck"}, "by must be one of 'number', .*, got 'luck'"),
        ({"order": "mine"}, "order must be one of .*, got 'mine'"),
        ({"z": " "}, "z must have 1 to 10000 logits, got 0"),
        ({"label": "5"}, "label must be <= 4, got 5"),
        ({"n": "1000000"}, "n must be <= 100000, got 1000000"),
        ({"seed": "-1"}, "seed must be >= 0, got -1"),
    ],
    ids=str,
)
def test_invalid_settings(datasets, settings, message):
    """The error names the setting, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        get_view(datasets, **settings)


@pytest.mark.parametrize("T", ["-1", "-inf", "-1e-9", "0", "1", "inf"])
def test_order_with_excluded_classes(datasets, T):
    """-inf is excluded at T < 0 too, where smaller logits are more probable."""
    bars = get_view(datasets, z="-inf 1 2 3 -inf inf", T=T)["bars"]
    bare = get_view(datasets, z="-inf 1 2 3 -inf", T=T, p="0.6")["bars"]
    assert bars["same_order"]
    assert bars["reversed"] == T.startswith("-")
    assert bare["same_order"]
    assert bare["rank"] == ([4, 1, 2, 3, 4] if T.startswith("-") else [4, 3, 2, 1, 4])


@pytest.mark.parametrize("T", ["-1", "1"])
def test_stages_that_remove_the_most_probable(datasets, T):
    """Then logits and probabilities are not in the same order."""
    for stage, value in (("xtc", "0.1"), ("typical", "0.2"), ("p", "0.5"), ("k", "2")):
        z = "2.1 1.4 0.7 0 0" if T == "1" else "-2.1 -1.4 -0.7 0 0"
        bars = get_view(datasets, z=z, T=T, **{stage: value})["bars"]
        assert bars["same_order"] == (stage in ("p", "k"))
        assert bars["removed"][0] == (stage in ("xtc", "typical"))


def test_row_without_a_distribution(datasets):
    """NaN probabilities, and a reason why there are no samples."""
    shown = get_view(datasets, edit="0:-inf,1:-inf,2:-inf,3:-inf,4:-inf", n="5", open="gradient")
    assert shown["bars"]["p"] == [None] * 5
    assert "no distribution" in shown["samples"]["unavailable"]


@pytest.fixture(scope="module")
def server():
    command = [sys.executable, "-c", "from logitlab._app import main; main()", "explore"]
    process = subprocess.Popen(
        [*command, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    yield urlsplit(process.stdout.readline().strip()), process
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", ""), "Ctrl-C stops the server without output"


def request(server, path=None, method="GET", body=None, host=None, **headers):
    address, _ = server
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=10)
    connection.putrequest(method, address.path if path is None else path, skip_host=True)
    connection.putheader("Host", host or address.netloc)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def test_server(server):
    """The page, its files and its values, with security headers."""
    address, _ = server
    assert address.hostname == "127.0.0.1"
    assert len(address.path.strip("/")) >= 43
    answer, text = request(server)
    assert answer.status == 200
    assert "<title>logitlab explorer" in text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    for name in ("main.js", "style.css"):
        assert request(server, address.path + name)[0].status == 200
    own = f"http://{address.netloc}"
    answer, text = request(server, address.path + "view", "POST", b"T=2", Origin=own)
    shown = json.loads(text)
    assert shown["bars"]["p"] == logitlab.softmax([2.0, 1, 3, 5, 4], temperature=2).tolist()
    answer, text = request(server, address.path + "view", "POST", b"T=x", Origin=own)
    assert (answer.status, json.loads(text)) == (400, {"error": "T must be a number, got 'x'"})


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
def test_forbidden_requests(server, change):
    """Another Host, another Origin, no token or a wrong one: status 403."""
    change = {name: value.format(port=server[0].port) for name, value in change.items()}
    for method, body in (("GET", None), ("POST", b"T=1")):
        answer, text = request(server, method=method, body=body, **change)
        assert (answer.status, text) == (403, "forbidden\n")


@pytest.mark.parametrize(
    "name", ["page.html", "server.py", "../server.py", "%2e%2e%2fserver.py", "x.js"]
)
def test_other_files_are_not_served(server, name):
    """The server sends the scripts and the style sheet of the page only."""
    assert request(server, server[0].path + name)[0].status == 404


def raw_request(server, data):
    """The first line of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", server[0].port), timeout=10) as connection:
        connection.sendall(data)
        return connection.makefile("rb").readline().decode().strip()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("OPTIONS *", 403),
        ("GET abc", 403),
        ("GET x/{token}/", 403),
        ("CONNECT 127.0.0.1:80", 403),
        ("GET http://127.0.0.1/", 403),
        ("GET //{token}/", 403),
        ("GET /" + "a" * 5000, 403),
        ("GET /{token}/" + "a" * 5000 + ".js", 404),
        ("GET /{token}/%00.js", 404),
        ("GET /{token}/..%2fserver.py", 404),
        ("DELETE /{token}/view", 405),
    ],
    ids=lambda x: str(x)[:30],
)
def test_unusual_targets(server, target, status):
    """No path, a path without a slash, a name that is too long for a file."""
    address, _ = server
    target = target.format(token=address.path.strip("/"))
    line = raw_request(server, f"{target} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    assert line.split()[1] == str(status)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"a\r\n\r\n"])
def test_malformed_requests(server, data):
    assert raw_request(server, data).split()[1] in ("400", "403")


def test_two_hosts_are_forbidden(server):
    """By the HTTP library, and by the guard without it."""
    address, _ = server
    head = f"GET {address.path} HTTP/1.1\r\n" + 2 * f"Host: {address.netloc}\r\n"
    assert raw_request(server, f"{head}\r\n".encode()).split()[1] in ("400", "403")
    host = (b"host", b"127.0.0.1:80")
    for hosts, status in (([host], 200), ([host, host], 403), ([], 403)):
        assert guard_status(hosts) == status


def guard_status(headers, path="/secret/"):
    """The status of an answer of the guard in front of an application that answers 200."""

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        statuses.append(message.get("status"))

    async def accept(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    statuses = []
    scope = {"type": "http", "path": path, "headers": headers, "server": ("127.0.0.1", 80)}
    asyncio.run(Guard(accept, "secret")({**scope, "method": "GET"}, receive, send))
    return statuses[0]


def test_limit_of_the_body(server):
    """1 MiB is accepted, a byte more is not."""
    limit = 1 << 20
    path = server[0].path + "view"
    for size, status in ((limit, 200), (limit + 1, 413)):
        body = b"T=2&x=" + b"a" * (size - 6)
        assert request(server, path, "POST", body)[0].status == status


def test_connections_without_a_request_are_closed(monkeypatch):
    """Nothing sent, half a header, and half a second header; a request in time is answered."""
    monkeypatch.setattr(server_module, "_HEADER_SECONDS", 0.2)
    with server_module.listen(0) as opened:
        port = opened.getsockname()[1]
        config = uvicorn.Config(
            server_module.application(Datasets(), "secret"),
            http=server_module.Protocol,
            lifespan="off",
            log_level="critical",
        )
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        half = f"GET /secret/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
        for start in (b"", half, half + b"\r\n" + half):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(start)
                received = b""
                while data := connection.recv(1 << 16):
                    received += data
                assert received.startswith(b"HTTP/1.1 200" if start.count(b"GET") == 2 else b"")
                assert bool(received) == (start.count(b"GET") == 2)
        running.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_server_listens_on_the_loopback_interface_only(server):
    """Another address of the machine refuses the connection."""
    with socket.socket() as connection:
        connection.settimeout(2)
        assert connection.connect_ex(("127.0.0.2", server[0].port)) == errno.ECONNREFUSED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.npy"], "nowhere.npy: no such file or folder"),
        (["--labels", "y.npy"], "--labels and --probabilities need LOGITS"),
        (["thin.npy"], "thin.npy: logits must have a row and a class, got shape (3, 0)"),
        (["twice.csv"], "twice.csv: column names must be distinct, got 'a' twice"),
        (
            ["p.npy", "--probabilities"],
            "p.npy: row 70000: probabilities must sum to 1, got 2; "
            "omit --probabilities if these are logits",
        ),
    ],
)
def test_errors(tmp_path, monkeypatch, arguments, message):
    """One line on standard error and exit status 2, before the server starts."""
    monkeypatch.chdir(tmp_path)
    p = np.full((70_001, 4), 0.25)
    p[70_000] *= 2
    np.save("p.npy", p)
    np.save("thin.npy", p[:3, :0])
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n3,4\n")
    result = CliRunner().invoke(app, ["explore", "--no-browser", *arguments])
    assert result.exit_code == 2
    assert result.stderr == f"logitlab: {message}\n"


def test_port_in_use(server):
    """One line on standard error, exit status 2."""
    result = CliRunner().invoke(app, ["explore", "--no-browser", "--port", str(server[0].port)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"logitlab: --port {server[0].port}: Address already in use")


def test_address_is_passed_to_the_browser_in_a_private_file(monkeypatch):
    """The token is in a file that only its owner can read, not in an argument."""
    import os
    import webbrowser

    from logitlab._app.explore import server

    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with server._opened_in_browser("http://127.0.0.1:1/secret/"):
        (path,) = (address.removeprefix("file://") for address in opened)
        assert "secret" not in path
        assert "url=http://127.0.0.1:1/secret/" in Path(path).read_text()
        assert os.stat(os.path.dirname(path)).st_mode & 0o077 == 0
    assert not os.path.exists(path)


def test_json_values():
    """NaN and infinities as JSON can hold them."""
    data = {"a": np.array([1.0, np.nan, np.inf]), "b": (np.int64(3), -np.inf, True)}
    assert json_values(data, infinity_as_text=True) == {
        "a": [1.0, None, "inf"],
        "b": [3, "-inf", True],
    }


def test_labels_of_another_length(tmp_path):
    """A UserError, as in the report."""
    np.save(tmp_path / "z.npy", np.zeros((3, 2)))
    np.save(tmp_path / "y.npy", np.zeros(4, int))
    with pytest.raises(UserError, match="they must have the same number of rows"):
        read_dataset(str(tmp_path / "z.npy"), str(tmp_path / "y.npy"), False)
