"""`logitlab fit` on tables as people have them: missing values, text as numbers, dates, ids."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from reports import overwriting
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.fit.reading import read_table
from logitlab._app.io.source import UserError
from logitlab.tables.infer import infer_plan
from logitlab.tables.values import column_values

pytestmark = pytest.mark.slow


def run(*arguments):
    return CliRunner().invoke(app, overwriting(*arguments), catch_exceptions=False)


def fit(path, *arguments, folder="m"):
    """The report and the plan, by column."""
    out = path.parent / folder
    result = run("fit", path, "--target", "y", "-o", out, "--json", *arguments)
    assert result.exit_code == 0, result.output
    plan = pd.read_csv(out / "columns.csv", index_col="column", keep_default_na=False)
    return json.loads(result.stdout), plan


def messy(n=20_000, seed=0):
    """An id, ISO dates, numbers in text, 5,000 levels, a constant, yes and no; 10 % missing."""
    rng = np.random.default_rng(seed)
    income, age = rng.lognormal(10, 0.6, n), rng.integers(18, 90, n).astype(float)
    days, city = rng.integers(0, 1200, n), rng.zipf(1.3, n) % 5000
    member = rng.random(n) < 0.4
    z = (np.log(income) - 10) + 0.03 * (age - 50) + rng.normal(0, 0.6, 5000)[city] + member
    p = 1 / (1 + np.exp(-(z + 0.001 * days - 6)))

    def incomplete(values):
        values = pd.Series(values).astype(object)
        values[rng.random(n) < 0.1] = None
        return values

    return pd.DataFrame(
        {
            "customer_id": [f"C{i:07d}" for i in rng.permutation(n)],
            "joined": incomplete((np.datetime64("2021-01-01") + days).astype(str)),
            "income": incomplete([f"{value:,.0f}" for value in income]),
            "age": incomplete(age),
            "city": incomplete([f"city {c}" for c in city]),
            "country": "NO",
            "member": incomplete(np.where(member, "yes", "no")),
            "y": np.where(rng.random(n) < p, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The table, its file, and the report and plan of the fit without any other option."""
    path = tmp_path_factory.mktemp("messy") / "messy.csv"
    data = messy()
    data.to_csv(path, index=False)
    return (data, path, *fit(path))


def test_plan(example):
    """The type of each column, its missing values and levels, and what is done with it."""
    _, _, report, plan = example
    assert plan.type.to_dict() == {
        "customer_id": "text, id",
        "joined": "date",
        "income": "number 1,234.5",
        "age": "number",
        "city": "text",
        "country": "text",
        "member": "yes/no",
    }
    assert plan.index[~plan.used].tolist() == ["customer_id", "country"]
    assert plan.used_as["country"] == "dropped: constant (NO)"
    assert plan.missing["customer_id"] == 0
    assert 0.09 < int(plan.missing["income"]) / 16_000 < 0.11
    assert [line["name"] for line in report["fit"]["columns"]] == plan.index.tolist()
    assert report["fit"]["leak_suspects"] == {}


def test_log_loss_of_a_scikit_learn_pipeline(example):
    """The held-out log-loss is at most 1 % above that of the same model."""
    data, _, report, _ = example
    X = pd.DataFrame(
        {
            "days": (pd.to_datetime(data.joined) - pd.Timestamp("2000-01-01")).dt.days,
            "income": data.income.str.replace(",", "").astype(float),
            "age": data.age.astype(float),
            "member": data.member.map({"yes": 1.0, "no": 0.0}),
            "city": data.city.astype(object).where(data.city.notna(), "missing"),
        }
    )
    fit_rows, held_out_rows = train_test_split(
        np.arange(len(data)), test_size=0.2, random_state=0, stratify=data.y
    )
    encoder = make_column_transformer(
        (
            make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
            ["days", "income", "age", "member"],
        ),
        (
            OneHotEncoder(
                handle_unknown="infrequent_if_exist", min_frequency=10, max_categories=102
            ),
            ["city"],
        ),
    )
    peer = make_pipeline(encoder, LogisticRegression(max_iter=1000))
    peer.fit(X.iloc[fit_rows], data.y[fit_rows])
    expected = log_loss(data.y[held_out_rows], peer.predict_proba(X.iloc[held_out_rows]))
    print(report["log_loss"], expected)
    assert report["log_loss"] < 1.01 * expected


def test_base_rate_and_auc(example):
    """With one class above 90 % the summary shows them beside the accuracy."""
    _, path, report, _ = example
    result = run("fit", path, "--target", "y", "-o", path.parent / "again")
    assert result.exit_code == 0, result.output
    base_rate, auc = report["fit"]["base_rate"], report["fit"]["roc_auc"]
    assert base_rate == pytest.approx(0.98, abs=0.01)
    assert 0.6 < auc < 0.9
    lines = [[cell.strip() for cell in line.split("│")] for line in result.stdout.splitlines()]
    scores = {line[1]: line[2] for line in lines if len(line) > 2}
    assert scores["base rate (no)"] == f"{base_rate:.4f}"
    assert scores["ROC AUC"] == f"{auc:.4f}"
    assert f"ROC AUC {auc:.3f}." in report_notes(report)


def report_notes(report):
    return " ".join(report["input_summary"]["notes"])


def test_auc_of_several_classes(tmp_path):
    """One-vs-rest, macro average, as scikit-learn's."""
    data = numbers(3000)
    data["y"] = data.y.where(np.arange(3000) % 20 == 0, "c")
    report, _ = fit_csv(tmp_path / "t.csv", data)
    p = logitlab.load_model(tmp_path / "m").predict_proba(data)
    held_out = train_test_split(np.arange(3000), test_size=0.2, random_state=0, stratify=data.y)[1]
    expected = roc_auc_score(data.y[held_out], p[held_out], multi_class="ovr")
    assert report["fit"]["roc_auc"] == pytest.approx(expected, abs=0.002)
    assert "one-vs-rest, macro average" in report_notes(report)


def test_predict_uses_the_same_encoding(example):
    """From .csv and from data frames of pandas, polars and Arrow."""
    data, path, _, _ = example
    frequent = data.city.map(data.city.value_counts()) > 50
    rows = data[frequent].drop(columns="y").head(500)
    rows.to_csv(path.parent / "rows.csv", index=False)
    out = path.parent / "p.csv"
    result = run("predict", path.parent / "m", path.parent / "rows.csv", "-o", out)
    assert result.exit_code == 0, result.output
    model = logitlab.load_model(path.parent / "m")
    expected = pd.read_csv(out)[["no", "yes"]]
    for frame in (rows, pl.from_pandas(rows), pa.Table.from_pandas(rows)):
        np.testing.assert_allclose(model.predict_proba(frame), expected, rtol=1e-12)


def numbers(n=400, seed=0):
    rng = np.random.default_rng(seed)
    x, w = rng.lognormal(7, 1, n), rng.standard_normal(n)
    y = np.where(np.log(x) - 7 + w + rng.gumbel(size=n) > 0, "a", "b")
    return pd.DataFrame({"x": x, "w": w, "y": y})


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_delimiters_and_encodings(tmp_path, delimiter, encoding):
    """They are detected, beside other delimiters and line ends in quotes."""
    data = pd.DataFrame(
        {"größe": ["1,5", "2,5"], "note": ["a, b; c", 'd\t"e"\n|f'], "y": ["ä", ""]}
    )
    data.to_csv(tmp_path / "t.csv", sep=delimiter, encoding=encoding, index=False)
    table = read_table(tmp_path / "t.csv")
    assert table.to_pydict() == {name: list(values) for name, values in data.items()}


def test_encoding_of_a_late_line(tmp_path):
    """Beyond the lines that are looked at first."""
    text = "x,y\n" + "1,a\n" * 50_000 + "2,ä\n"
    (tmp_path / "t.csv").write_text(text, encoding="cp1252")
    assert read_table(tmp_path / "t.csv").column("y")[-1].as_py() == "ä"


@pytest.mark.parametrize(
    ("text", "arguments", "names"),
    [
        ("a , b\n1,2\n", (), ["a", "b"]),
        ("a:b\n1:2\n", (":",), ["a", "b"]),
        ("a\tb\n1\t2\n", ("tab",), ["a", "b"]),
        ("a;b\n1;2\n", (",",), ["a;b"]),
        ("a\n1\n", (), ["a"]),
        ("1,2\n3,4\n", (), ["f0", "f1"]),
        ("0,1\n3,4\n", (), ["0", "1"]),
    ],
)
def test_headers(tmp_path, text, arguments, names):
    """Names without spaces around them; --delimiter overrules what is detected."""
    (tmp_path / "t.csv").write_text(text)
    table = read_table(tmp_path / "t.csv", *arguments)
    assert table.column_names == names
    assert table.num_rows == text.count("\n") - (names[0] != "f0")


@pytest.mark.parametrize(
    ("name", "text", "delimiter", "message"),
    [
        ("t.csv", "", None, "must have a header and rows, got an empty file"),
        ("t.csv", "a,b\n", None, "must have at least one row, got none"),
        ("t.csv", "a,b\n1,2\n3\n", None, "Expected 2 columns, got 1"),
        ("t.csv", "a,b\n1,2\n", "::", "--delimiter must be one character or tab, got '::'"),
        ("t.parquet", "", ";", "--delimiter is for .csv files"),
    ],
)
def test_unreadable_tables(tmp_path, name, text, delimiter, message):
    """An error that says why."""
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / name, delimiter)


def fit_csv(path, data, *arguments, **options):
    data.to_csv(path, index=False, **options)
    return fit(path, *arguments)


@pytest.mark.parametrize(
    ("write", "shown"),
    [
        (lambda v: f"{v:,.2f}", "number 1,234.5"),
        (lambda v: f"{v:,.2f}".translate({44: ".", 46: ","}), "number 1.234,5"),
        (lambda v: f"{v:.2f}".replace(".", ","), "number 1234,5"),
        (lambda v: f"{v:,.2f}".replace(",", " "), "number 1 234.5"),
        (lambda v: f"${v:,.2f}", "number 1,234.5"),
        (lambda v: f" {v:.2f} ", "number"),
    ],
)
def test_numbers_in_text(write, shown):
    """Read as the same numbers."""
    data = numbers().round(2)
    plan = infer_plan(pa.table({"x": data.x.map(write)}))
    assert plan.lines[0].type == shown
    values, unreadable = column_values(plan.columns[0], pa.chunked_array([data.x.map(write)]))
    assert values[0].tolist() == data.x.tolist()
    assert unreadable == 0


def test_ambiguous_numbers():
    """1,234 is read as in the other columns, or as the options say."""

    def shown(*columns, **options):
        table = pa.table({f"x{i}": values * 20 for i, values in enumerate(columns)})
        return infer_plan(table, **options).lines[0].type

    assert shown(["1,234", "5,678"]) == "number 1,234.5"
    assert shown(["1,234", "5,678"], ["0,626", "1,2"]) == "number 1234,5"
    assert shown(["1,234", "5,678"], ["0.626", "1.2"]) == "number 1,234.5"
    assert shown(["1.234", "5.678"]) == "number"
    assert shown(["1.234", "5.678"], ["1,5", "2,5"]) == "number 1.234,5"
    assert shown(["1,234", "5,678"], decimal=",") == "number 1234,5"
    assert shown(["1,234", "5,678"], decimal=".", thousands="") == "text"
    assert shown(["1_234", "5_678"], thousands="_") == "number 1_234.5"


def test_missing_markers():
    """NA, -, ? and null are missing in numbers and in text."""
    markers = ["NA", "-", "?", "null", "n/a", "", " ", "NaN", "None", None]
    plan = infer_plan(pa.table({"x": markers + ["1", "2"] * 20, "w": markers + ["a", "b"] * 20}))
    assert [(line.type, line.missing) for line in plan.lines] == [("number", 10), ("text", 10)]


def test_identifiers_and_constants(tmp_path):
    """Dropped with a line that says so, unless they are kept."""
    data = numbers()
    data = data.assign(
        id=range(1000, 1400),
        name=[f"n{i}" for i in range(400)],
        note=[f"note {i % 150}" for i in range(400)],
        one=1,
        same="same",
        none=None,
    )
    data.to_csv(tmp_path / "t.csv", sep=";", index=False)
    _, plan = fit(tmp_path / "t.csv")
    assert plan.used_as.to_dict() == {
        "x": "as it is",
        "w": "as it is",
        "id": "dropped: an identifier",
        "name": "dropped: an identifier",
        "note": "dropped: no level has 10 rows",
        "one": "dropped: constant (1)",
        "same": "dropped: constant (same)",
        "none": "dropped: no values",
    }
    _, plan = fit_csv(tmp_path / "t.csv", data, "--keep", "id", "--keep", "name", "--drop", "w")
    assert plan.used_as["id"] == "as it is"
    assert plan.used_as["name"] == "100 levels and (other)"
    assert plan.used_as["w"] == "dropped: --drop"


def test_leaks(tmp_path):
    """A column that alone decides the class has a warning before and after the scores."""
    data = numbers()
    data = data.assign(
        number=np.where(data.y == "a", 1.0, 2.0) + data.w / 100,
        text=data.y.map({"a": "p", "b": "q"}),
    )
    data.to_csv(tmp_path / "t.csv", index=False)
    result = run("fit", tmp_path / "t.csv", "--target", "y", "-o", tmp_path / "m")
    assert result.exit_code == 0, result.output
    for name in ("number", "text"):
        warning = f"Warning: Column '{name}' alone predicts the class (mean recall"
        assert result.stdout.count(warning) == 2
    report, plan = fit(tmp_path / "t.csv", "--drop", "number", "--drop", "text")
    assert report["fit"]["leak_suspects"] == {}
    assert set(plan.index[plan.used]) == {"x", "w"}


def test_rows_without_target(tmp_path):
    """They are not used, and counted; a few values that cannot be read are missing."""
    data = numbers().astype({"x": object})
    data.loc[20:30, "x"] = "unknown"
    data.loc[:9, "y"] = None
    data.to_csv(tmp_path / "t.csv", index=False)
    result = run("fit", tmp_path / "t.csv", "--target", "y", "-o", tmp_path / "m")
    assert "Fitted on 312 rows, 78 rows held out" in result.stdout
    assert "target 'y' is missing in 10 rows: not used" in result.stdout
    report, _ = fit(tmp_path / "t.csv")
    expected, _ = fit_csv(tmp_path / "t.csv", data[10:])
    assert report["log_loss"] == expected["log_loss"]


def test_all_problems_at_once(tmp_path):
    """In one line: options that fit no column, and columns of a wrong type at predict."""
    numbers().to_csv(tmp_path / "t.csv", index=False)
    arguments = ["--target", "z", "--drop", "a", "--keep", "b", "--decimal", ";"]
    result = run("fit", tmp_path / "t.csv", *arguments, "-o", tmp_path / "m")
    assert result.exit_code == 2
    for message in (
        "--target must be one of x, w, y, got 'z'",
        "--drop must be columns, got 'a'",
        "--keep must be columns, got 'b'",
        "--decimal must be '.' or ',', got ';'",
    ):
        assert message in result.stderr
    assert result.stderr.count("\n") == 1
    fit(tmp_path / "t.csv")
    numbers().assign(x="big").drop(columns="w").to_csv(tmp_path / "bad.csv", index=False)
    result = run("predict", tmp_path / "m", tmp_path / "bad.csv", "-o", tmp_path / "p.csv")
    assert result.exit_code == 2
    assert (
        "must have all columns of the fit; missing: 'w'; column 'x' must contain numbers, got "
        in (result.stderr)
    )
    assert result.stderr.count("\n") == 1


def test_new_columns_are_ignored(tmp_path):
    """With a message that names them."""
    fit_csv(tmp_path / "t.csv", numbers().assign(same=1))
    numbers().assign(extra=1, same=1).to_csv(tmp_path / "new.csv", index=False)
    result = run("predict", tmp_path / "m", tmp_path / "new.csv", "-o", tmp_path / "p.csv")
    assert result.stderr == "logitlab: columns that the fit did not have are ignored: 'extra'\n"
