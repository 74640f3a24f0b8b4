"""`TableModel`: the types of columns, their features, and the model in files."""

import datetime
import json
import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import safetensors
import safetensors.numpy
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import logitlab
import logitlab.onnx
from logitlab.tables.columns import NumberFormat
from logitlab.tables.infer import infer_plan
from logitlab.tables.text import as_numbers, as_times, date_fields
from logitlab.tables.values import column_values

pytestmark = pytest.mark.slow


def frame(n=300, seed=0):
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n).astype(float),
            "city": rng.choice(["Oslo", "Bergen", "Tromsø"], n),
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"),
            "member": rng.random(n) < 0.5,
        }
    )
    data.loc[::7, "age"] = np.nan
    return data, np.where(rng.random(n) < 0.4 + 0.3 * data.member, "b", "a")


@pytest.fixture(scope="module")
def fitted():
    X, y = frame()
    return X, y, logitlab.TableModel().fit(X, y)


def numbers(texts, *marks):
    return as_numbers(pa.chunked_array([pa.array(texts, pa.string())]), NumberFormat(*marks))


@pytest.mark.parametrize(
    ("text", "marks", "value"),
    [
        ("-1.5e3", (".", ""), -1500),
        ("$1,234,567.5", (".", ","), 1234567.5),
        ("-$1,234", (".", ","), -1234),
        ("1,234", (",", ""), 1.234),
        ("1.234,5 €", (",", "."), 1234.5),
        ("1\u202f234,5", (",", " "), 1234.5),
        ("1'234.5", (".", "'"), 1234.5),
        ("12.5 %", (".", ""), 12.5),
        ("\u22121.5", (".", ""), -1.5),
        ("(1,234)", (".", ","), -1234),
        ("($1.5)", (".", ""), -1.5),
        ("$(1.234,5)", (",", "."), -1234.5),
        ("(-1)", (".", ""), math.nan),
        ("007", (".", ""), math.nan),
        ("12345678901234567", (".", ""), math.nan),
        (".5", (".", ""), 0.5),
        ("12,34", (".", ","), math.nan),
        ("0,123", (".", ","), math.nan),
        ("1.2.3", (",", "."), math.nan),
        ("twelve", (".", ""), math.nan),
        ("1e999", (".", ""), math.nan),
        ("inf", (".", ""), math.nan),
        (None, (".", ""), math.nan),
    ],
)
def test_numbers_in_text(text, marks, value):
    """Alone, and beside text that is no number."""
    np.testing.assert_equal(numbers([text], *marks)[0], value)
    np.testing.assert_equal(numbers(["x", text], *marks), [math.nan, value])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-02-29", datetime.datetime(2024, 2, 29)),
        ("2024-02-29T12:30", datetime.datetime(2024, 2, 29, 12, 30)),
        ("2024-02-29 12:30:15.5", datetime.datetime(2024, 2, 29, 12, 30, 15, 500000)),
        ("2024-02-29T12:30:15.123456789", datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)),
        ("2024-02-29T12:30:15Z", datetime.datetime(2024, 2, 29, 12, 30, 15)),
        ("2024-02-29T12:30+02:00", datetime.datetime(2024, 2, 29, 10, 30)),
        ("2023-02-29", None),
        ("2024-13-01", None),
        ("29.02.2024", None),
        (None, None),
    ],
)
def test_dates_in_text(text, value):
    """ISO dates and times; with a zone they are in UTC."""
    times = as_times(pa.chunked_array([pa.array([text, "2000-01-01"], pa.string())]))
    assert times[0].as_py() == value
    assert date_fields(times)["days"][1] == 0


def test_date_fields():
    """Days since 2000, month, weekday and hour, as in Python's datetime."""
    time = datetime.datetime(2024, 2, 29, 18, 0)
    for value in (time, time.replace(tzinfo=datetime.UTC)):
        fields = date_fields(pa.chunked_array([pa.array([value, None])]))
        assert fields["days"][0] == (time - datetime.datetime(2000, 1, 1)).days + 0.75
        assert [fields[k][0] for k in ("month", "weekday", "hour")] == [1, time.weekday(), 18]
        assert all(math.isnan(values[1]) for values in fields.values())


def plan_of(**columns):
    (column,) = infer_plan(pa.table(columns)).columns or [None]
    (line,) = infer_plan(pa.table(columns)).lines
    return column, line


def test_levels_are_capped():
    """Of more than 30 levels those with 10 rows are kept, the 100 most frequent ones."""
    few = [f"v{i % 30}" for i in range(300)] + ["rare"]
    counts = {f"v{i}": 200 - i for i in range(150)}
    many = [level for level, n in counts.items() for _ in range(n)]
    column, _ = plan_of(x=few[:-1])
    assert len(column.parts[0].levels) == 30
    column, _ = plan_of(x=few)
    assert set(column.parts[0].levels) == {*few[:-1], "(other)"}
    column, line = plan_of(x=many)
    assert set(column.parts[0].levels) == {*list(counts)[:100], "(other)"}
    assert line.levels == 150
    assert set(column.parts[0].rare) == set(list(counts)[100:])


def test_text_that_is_no_number():
    """Codes with leading zeros and long integers are text; a few other texts are missing."""
    assert plan_of(zip=["007", "123"] * 20)[1].type == "text"
    assert plan_of(card=["12345678901234567890", "2"] * 20)[1].type == "text"
    _, line = plan_of(x=[str(i) for i in range(99)] + ["unknown"])
    assert (line.type, line.missing) == ("number", 1)
    assert line.action == "missing: median 49; 1 not read: missing"
    assert plan_of(x=[str(i) for i in range(40)] + ["unknown"] * 3)[1].type.startswith("text")


@pytest.mark.parametrize("code", ["007", "12345678901234567"])
def test_few_codes_among_numbers(code):
    """Up to 5 % are missing values, in a prediction too; more make the column text."""
    numbers = [str(i) for i in range(96)]
    column, line = plan_of(x=[*numbers, *[code] * 4])
    assert (line.type, line.action) == (
        "number",
        "missing: median 47.5, indicator; 4 not read: missing",
    )
    assert column_values(column, pa.chunked_array([[code, "7"]]))[1] == 1
    assert plan_of(x=[*numbers, *[code] * 10])[1].type.startswith("text")


def test_postal_codes():
    """Digits of one length are text as soon as one has a leading zero."""
    codes = [f"{i % 30 + 1000}" for i in range(300)]
    assert plan_of(x=codes)[1].type == "number"
    assert plan_of(x=[*codes, "0150"])[1].type == "text"
    assert plan_of(x=[*codes, "0150", "?", "x"])[1].type == "text"
    assert plan_of(x=[*codes, "015"])[1].type == "number"


def test_negative_numbers_in_brackets():
    """A column with some is numbers."""
    _, line = plan_of(x=["(1,234)", "2,500", "\u22123,100", "120"] * 9)
    assert line.type == "number 1,234.5"


@pytest.mark.parametrize("value", ["yes", "2024-01-01", datetime.date(2024, 1, 1), True])
def test_one_value_with_missing_values(value):
    """Where it is missing may tell much: two levels. Without missing values it is a constant."""
    column, line = plan_of(x=[value, value, None, value])
    assert column.parts[0].levels[1:] == ("(missing)",)
    assert line.used
    column, line = plan_of(x=[value] * 4)
    assert column is None
    assert line.action.startswith("dropped: constant")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 3.0, None, 3.0], [3, 3, 0, 3]),
        ([3.0, 3.0, math.nan, 3.0], [3, 3, 0, 3]),
        (["3.0", "3", "", "3"], [3, 3, 0, 3]),
        ([0, 0, None, 0], [0, 0, 1, 0]),
        (pa.array([3, 3, None, 3]).dictionary_encode(), [3, 3, 0, 3]),
    ],
)
def test_one_number_with_missing_values(values, expected):
    """A number of any type, so that any type is read in a prediction; no second feature."""
    table = pa.table({"x": values})
    model = logitlab.TableModel(C=math.inf).fit(
        pa.concat_tables([table] * 2), [0, 1, 0, 1, 0, 1, 1, 1]
    )
    assert model.transform(table).tolist() == [[x] for x in expected]
    for other in (["3", None], ["3.0", "NA"], [3, None], [3.0, math.nan]):
        x = model.transform(pa.table({"x": other}))
        assert x.tolist() == [[3], [expected == [0, 0, 1, 0]]]
    assert plan_of(x=values)[1].missing == 1


def test_nan_is_null():
    """In the plan and in the features; in levels too."""
    for value in (1.0, 2.0):
        for missing in (math.nan, None):
            column = pa.array([1.0, missing, value] * 9)
            assert plan_of(x=column) == plan_of(x=[1.0, None, value] * 9)
    assert plan_of(x=pa.array([math.nan] * 9))[1] == plan_of(x=pa.nulls(9))[1]
    model = logitlab.TableModel().fit(pa.table({"x": ["a", "b", None, "a"] * 9}), [0, 1, 0, 1] * 9)
    missing = model.predict_proba(pa.table({"x": pa.array([None], pa.string())}))
    assert (model.predict_proba(pa.table({"x": [math.nan]})) == missing).all()


def test_format_is_shown_where_it_matters():
    """Whole numbers have no format, though beside others with a decimal comma they have one."""
    lines = infer_plan(pa.table({"a": ["1", "2 %"] * 9, "b": ["1,5", "0,25"] * 9})).lines
    assert [line.type for line in lines] == ["number", "number 1234,5"]


def test_dates_of_a_country_have_a_hint():
    """The order of day and month differs: they stay text."""
    _, line = plan_of(x=["31.12.2024", "01.02.2023"] * 9)
    assert line.action == "2 levels; if dates, write 2024-12-31"


@pytest.mark.parametrize("name", ["id", "ID", "customer_id", "userId", "Kunden-Nr", "Unnamed: 0"])
def test_integers_that_are_identifiers(name):
    """By their names, if they are distinct."""
    assert plan_of(**{name: list(range(50))})[1].action == "dropped: an identifier"
    assert plan_of(**{name: [0, *range(49)]})[0] is not None
    assert plan_of(**{f"{name}s": list(range(50))})[0] is not None


def test_types_that_are_not_read():
    """Lists and missing values alone are dropped."""
    assert plan_of(x=[[1], [2]])[1].action == "dropped: this type is not read"
    assert plan_of(x=pa.nulls(3))[1].action == "dropped: no values"
    assert plan_of(x=[math.inf, -math.inf])[1].action == "dropped: no finite values"


def test_features(fitted):
    """Numbers, indicators, then levels, under their names."""
    X, _, model = fitted
    x = model.transform(X)
    x = pd.DataFrame(x.toarray() if hasattr(x, "toarray") else x)
    x.columns = model.get_feature_names_out()
    assert (x["age=(missing)"] == X.age.isna()).all()
    assert (x.age == X.age.fillna(X.age.median())).all()
    assert (x.member == X.member).all()
    assert (x["city=Oslo"] == (X.city == "Oslo")).all()
    assert (x["when.month=Feb"] == (X.when.dt.month == 2)).all()
    assert (x["when.weekday=Sun"] == (X.when.dt.day_of_week == 6)).all()
    assert (x["when.days"] == (X.when - pd.Timestamp("2000-01-01")).dt.days).all()


def test_same_features_from_text_and_other_libraries(fitted):
    """A table of text has the types that its values have."""
    X, y, model = fitted
    text = X.assign(
        when=X.when.dt.strftime("%Y-%m-%d"),
        member=np.where(X.member, "yes", "no"),
        age=X.age.map(lambda v: "NA" if np.isnan(v) else f"{v:.0f}"),
        city=X.city.astype("category"),
    )
    expected = model.predict_proba(X)
    for table in (text, pl.from_pandas(X), pl.from_pandas(text), pa.Table.from_pandas(text)):
        np.testing.assert_allclose(model.predict_proba(table), expected, rtol=1e-12)
        again = clone(model).fit(table, y)
        np.testing.assert_allclose(again.predict_proba(X), expected, rtol=1e-9)


def test_unknown_levels_and_values(fitted):
    """Messages for new levels, new columns and values that cannot be read."""
    X, _, model = fitted
    age = X.age.astype(object)
    age.iloc[:3] = "young"
    new = X.assign(city=["Paris", *X.city[1:]], age=age, extra=1)
    with pytest.warns(UserWarning, match="column") as caught:
        model.predict(new)
    assert [str(w.message) for w in caught] == [
        "column 'age': not a number in 3 rows, read as missing",
        "column 'city': unknown levels in 1 row, encoded as zeros",
        "columns that the fit did not have are ignored: 'extra'",
    ]


def test_wrong_columns(fitted):
    """All problems are in one error."""
    X, _, model = fitted
    wrong = X.drop(columns="member").assign(when=1.5, age="old", city=[[1]] * len(X))
    with pytest.raises(ValueError, match="missing: 'member'") as error:
        model.predict(wrong)
    for message in (
        "column 'when' must contain ISO dates, got double",
        "column 'age' must contain numbers, got text such as 'old' in 300 of 300 values",
        "column 'city' must contain text, got list<item: int64>",
    ):
        assert message.replace("item", "element") in str(error.value).replace("item", "element")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"drop": "age"}, "drop must be a list of columns, got 'age'"),
        ({"drop": ["no"]}, "drop must be columns, got 'no'"),
        ({"keep": ["age"], "drop": ["age"]}, "must be distinct, got 'age' in both"),
        ({"decimal": ";"}, "decimal must be '.' or ',', got ';'"),
        ({"thousands": "x"}, "thousands must be one of"),
        ({"decimal": ",", "thousands": ","}, "thousands must be one of '.', ' ', "),
        ({"drop": ["age", "city", "when", "member"]}, "must have a column that is used"),
    ],
)
def test_invalid_parameters(parameters, message):
    """ValueError with the parameter and its value."""
    with pytest.raises(ValueError, match=message):
        logitlab.TableModel(**parameters).fit(*frame())


def test_not_a_table():
    """TypeError for arrays; two columns of one name are refused."""
    with pytest.raises(TypeError, match=r"X must be a data frame .*, got ndarray"):
        logitlab.TableModel().fit(np.zeros((4, 2)), [0, 1, 0, 1])
    table = pa.table([[1.0, 2.0]] * 2, names=["a", "a"])
    with pytest.raises(ValueError, match="column names must be distinct, got 'a' more than once"):
        logitlab.TableModel().fit(table, [0, 1])


@pytest.mark.parametrize("C", [1.0, math.inf])
def test_files(tmp_path, C):
    """A model in a file, in its folder too, predicts what it did."""
    X, y = frame()
    model = logitlab.TableModel(C=C).fit(X, y)
    model.temperature_ = 1.5
    model.save(tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        loaded = logitlab.load_model(path)
        assert (loaded.predict_proba(X) == model.predict_proba(X)).all()
        assert (loaded.predict(X) == model.predict(X)).all()
        assert loaded.classes_.tolist() == ["a", "b"]
        assert loaded.feature_names_in_.tolist() == list(X)
        assert loaded.C == C


def test_files_of_whole_numbers_stored_as_float(tmp_path):
    """These labels are accepted in a fit, and so in a file."""
    X, y = frame()
    model = logitlab.TableModel().fit(X, np.where(y == "a", 1.0, 2.0))
    model.save(tmp_path / "m")
    loaded = logitlab.load_model(tmp_path / "m")
    assert loaded.classes_.tolist() == [1.0, 2.0]
    assert loaded.classes_.dtype == np.float64
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def change(metadata, path, value):
    *steps, last = path
    for step in steps:
        metadata = metadata[step]
    metadata[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["columns", 0, "name"], 1, "the name must be text"),
        (["columns", 0, "kind"], "date", "numbers alone have a format"),
        (["columns", 0, "kind"], "car", "the kind must be one of number, yes/no, date, text"),
        (["columns", 0, "format", "decimal"], ";", "decimal must be"),
        (["columns", 0, "parts", 0, "fill"], None, "fill must be a finite number"),
        (["columns", 0, "parts"], [], "the fields must be distinct, at least one"),
        (["columns", 0, "parts", 0, "field"], "hour", "field 'hour' does not belong to the kind"),
        (["columns", 1, "parts", 0, "levels"], ["a", "a", "b"], "the levels must be distinct"),
        (["columns", 1, "parts", 0, "levels"], ["a", "b", "c", "d"], "coef must have shape"),
        (["columns", 1, "parts", 0, "fill"], 9.0, "fill must be the index of a level"),
        (["columns", 1, "name"], "age", "the columns must have distinct names"),
        (["columns", 1, "more"], 1, "its metadata is incomplete"),
        (["columns", 0, "parts", 0, "more"], 1, "its metadata is incomplete"),
        (["columns"], {}, "coef must have shape"),
        (["dropped"], [1], "the names of dropped columns must be text"),
        (["target"], 1, "the target must be text, got 1"),
        (["classes"], ["a", "a"], "the classes must be distinct labels of one type"),
        (["classes"], ["a", 1], "the classes must be distinct labels of one type"),
        (["classes"], [1.0, math.inf], "the classes must be distinct labels of one type"),
        (["classes"], ["a", "b", "c"], "the coefficients must have a row for each class"),
        (["classes"], None, "its metadata is incomplete"),
        (["C"], [], "its metadata is incomplete"),
        (["temperature"], 0, "temperature must be positive and finite, got 0.0"),
    ],
)
def test_damaged_files(fitted, tmp_path, path, value, message):
    """One clear error."""
    _, _, model = fitted
    file = tmp_path / "model.safetensors"
    model.save(file)
    with safetensors.safe_open(file, "np") as opened:
        metadata = json.loads(opened.metadata()["logitlab"])
    change(metadata, path, value)
    tensors = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file(tensors, file, {"logitlab": json.dumps(metadata)})
    with pytest.raises(ValueError, match=message):
        logitlab.load_model(file)


def test_skops(fitted):
    """The estimator in a file of skops, whose types are those of scikit-learn and logitlab."""
    skops = pytest.importorskip("skops.io")
    X, _, model = fitted
    data = skops.dumps(model)
    types = skops.get_untrusted_types(data=data)
    assert all(name.startswith("logitlab.") for name in types)
    loaded = skops.loads(data, trusted=types)
    assert (loaded.predict_proba(X) == model.predict_proba(X)).all()


def test_onnx(fitted, tmp_path):
    """The regression and the temperature, on the features of transform."""
    onnxruntime = pytest.importorskip("onnxruntime")
    X, _, model = fitted
    model = logitlab.TableModel().fit(*frame())
    model.temperature_ = 2.0
    session = onnxruntime.InferenceSession(
        logitlab.onnx.to_onnx(model, dtype=np.float64).SerializeToString()
    )
    x = model.transform(X)
    x = x.toarray() if hasattr(x, "toarray") else x
    p, predicted = session.run(None, {"features": x})
    np.testing.assert_allclose(p, model.predict_proba(X), rtol=1e-9)
    assert (predicted == model.predict(X)).all()


def test_cross_validation():
    """scikit-learn selects the rows of pandas and polars."""
    X, y = frame()
    scores = cross_val_score(logitlab.TableModel(), X, y, cv=3, scoring="neg_log_loss")
    polars = cross_val_score(logitlab.TableModel(), pl.from_pandas(X), y, cv=3)
    assert (scores > -0.8).all()
    assert len(polars) == 3


def test_missing_values_that_the_fit_did_not_have():
    """They become the median; infinite numbers too, with a message."""
    model = logitlab.TableModel().fit(pa.table({"x": [1.0, 2.0, 4.0, 8.0]}), [0, 1, 0, 1])
    missing = pa.table({"x": [None, math.nan, 3.0, 7.0]})
    np.testing.assert_array_equal(model.transform(missing), [[3.0], [3.0], [3.0], [7.0]])
    with pytest.warns(UserWarning, match="'x': not a number in 1 row, read as missing"):
        np.testing.assert_array_equal(model.transform(pa.table({"x": [math.inf]})), [[3.0]])


def test_rare_levels_are_no_unknown_ones():
    """Both are encoded as (other); unknown ones have a message."""
    texts = [f"v{i}" for i in range(40) for _ in range(20 if i < 35 else 2)]
    model = logitlab.TableModel().fit(pa.table({"x": texts}), np.arange(len(texts)) % 2)
    rare = model.transform(pa.table({"x": ["v39", "v36"]}))
    with pytest.warns(UserWarning, match=r"unknown levels in 1 row, encoded as \(other\)"):
        unknown = model.transform(pa.table({"x": ["v39", "new"]}))
    assert (rare != unknown).sum() == 0


def test_numbers_in_a_column_of_yes_and_no(fitted):
    """0 and 1 are no and yes; others are missing, with a message."""
    X, _, model = fitted
    same = model.predict_proba(X.assign(member=X.member.astype(float)))
    np.testing.assert_array_equal(same, model.predict_proba(X))
    member = X.member.astype(float)
    member[:2] = [2.0, -1.0]
    with pytest.warns(UserWarning, match="'member': not a yes/no in 2 rows, read as missing"):
        x = model.transform(X.assign(member=member))
    names = model.get_feature_names_out().tolist()
    assert x[:2, [names.index("member")]].toarray().ravel().tolist() == [X.member.median()] * 2


@pytest.mark.parametrize("columns", [["age", "city", "when", "member"], ["member"]])
def test_no_rows(columns):
    """A prediction has none; a fit needs one."""
    X, y = frame()
    model = logitlab.TableModel().fit(X[columns], y)
    for table in (X[columns][:0], pl.from_pandas(X[columns])[:0]):
        assert model.transform(table).shape == (0, len(model.get_feature_names_out()))
        assert model.predict_proba(table).shape == model.predict_log_proba(table).shape == (0, 2)
        assert model.predict(table).shape == (0,)
        with pytest.raises(ValueError, match="X must have at least one row, got none"):
            logitlab.TableModel().fit(table, [])
