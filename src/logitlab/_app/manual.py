"""The examples of each command and the files that it writes: in the help and in the guide."""

from typing import NamedTuple

EXIT_CODES = {
    0: "Success.",
    1: "logitlab check: a law fails. Elsewhere a defect of logitlab, with a traceback.",
    2: "An error of the options, of the input or of the output; one line on standard error.",
    130: "Interrupted with Ctrl-C; other signals: 128 + their number. logitlab explore: 0.",
    141: "The program that reads standard output ended, such as head.",
}

_REPORT_FILES = {
    "FOLDER/report.html": "The report, a page without other files.",
    "FOLDER/report.json": "The numbers of the report.",
}


class Manual(NamedTuple):
    """What the options of a command do not say."""

    examples: tuple[str, ...]
    files: dict[str, str] = {}  # noqa: RUF012  never changed


MANUALS = {
    "report": Manual(
        (
            "logitlab report",
            "logitlab report logits.npy --labels labels.npy -o report",
            "logitlab report logits.npy logits2.npy --labels labels.npy -o comparison",
            "logitlab report text.npz:logits --targets text.npz:tokens -o text-report",
        ),
        {
            **_REPORT_FILES,
            "FOLDER/tokens.csv": "With --targets: log-probability and rank of each token.",
        },
    ),
    "calibrate": Manual(
        (
            "logitlab calibrate logits.npy --labels labels.npy -o calibrator",
            "logitlab calibrate logits.npy --labels labels.npy --coverage 0.9 -o rules",
        ),
        {
            "FOLDER/calibrator.safetensors": "The calibrator, for logitlab apply.",
            **_REPORT_FILES,
        },
    ),
    "apply": Manual(
        (
            "logitlab apply calibrator new.npy",
            "logitlab apply calibrator new.npy -o probabilities.npy",
            "logitlab apply rules new.npy --top 2 -o decisions.csv",
        ),
        {"FILE": "With -o: a row for each row of LOGITS."},
    ),
    "fit": Manual(
        (
            "logitlab fit customers.csv --target left -o model",
            "logitlab fit customers.csv --target left --drop city -C inf -o no-penalty",
        ),
        {
            "FOLDER/model.safetensors": "The model, for logitlab predict.",
            "FOLDER/columns.csv": "How each column is used.",
            "FOLDER/coefficients.csv": "The coefficients; with -C inf, standard errors.",
            **_REPORT_FILES,
        },
    ),
    "predict": Manual(
        ("logitlab predict model new-customers.csv -o predictions.csv",),
        {"FILE": "The predicted class and the probability of each class, a row for each of TABLE."},
    ),
    "sample": Manual(
        (
            "logitlab sample logits.npy -n 5 --temperature 0.8 --top-p 0.95",
            "logitlab sample logits.npy --order vllm --seed 0 -o samples.parquet",
        ),
        {"FILE": "With -o: a row for each sample."},
    ),
    "explore": Manual(
        (
            "logitlab explore",
            "logitlab explore logits.npy --labels labels.npy --no-browser",
            "logitlab explore --export explorer",
        ),
        {"FOLDER/index.html": "With --export: the page, beside the files that it loads."},
    ),
    "check": Manual(
        (
            "logitlab check scipy.special:softmax --dtype float64",
            "logitlab check --sampler logitlab:sample --html sampler.html",
        ),
        {"FILE": "With --html: the table of the laws as a page."},
    ),
    "info": Manual(("logitlab info",)),
}
