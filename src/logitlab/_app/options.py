"""Arguments and options that several commands share."""

from typing import Annotated

import typer

FORMATS = (
    "FILE or FILE:NAME with rows of logits: .npy, .npz, .csv, .parquet or .safetensors; or a "
    "folder of .npy or .parquet shards, read in the order of their names."
)
ONE_SCORE = "One number for each row is the logit s of class 1 of two: the row [0, s]."
SAMPLE_LOGS = (
    "samples_*.jsonl of lm-evaluation-harness: the log-likelihoods of the choices; it has labels."
)
TABLE_FORMATS = ".csv, .parquet or a folder of .parquet files"

Labels = Annotated[
    str | None,
    typer.Option(
        metavar="LABELS",
        help="FILE, FILE:NAME or a folder with the true class of each row: its index from 0, or "
        "its name.",
        show_default=False,
    ),
]
Probabilities = Annotated[
    bool,
    typer.Option(
        "--probabilities",
        help="LOGITS contains probabilities; one number for each row is that of class 1.",
    ),
]
Axis = Annotated[
    int,
    typer.Option(
        "--axis",
        metavar="N",
        help="Axis of the classes in an array: 1 for segmentation, (N, K, H, W).",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Read the shards of a folder on the workers of a Dask cluster, which must see the "
        "folder at the same path: the address of its scheduler, such as tcp://HOST:8786; local "
        "starts a worker for each core of this machine.",
        show_default=False,
    ),
]
IgnoreIndex = Annotated[
    int | None,
    typer.Option(
        "--ignore-index",
        metavar="N",
        help="Exclude rows with this label, such as -100.",
        show_default=False,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace output files that exist; without it, they are an error."
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "-q",
        "--quiet",
        help="Print errors and the data that are asked for only: no summary, notes and progress.",
    ),
]
NoProgress = Annotated[
    bool,
    typer.Option(
        "--no-progress",
        help="Show no progress bar; there is one only where standard error is a terminal.",
    ),
]
