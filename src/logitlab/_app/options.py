"""Arguments and options that several commands share."""

from typing import Annotated

import typer

FORMATS = "FILE or FILE:NAME with rows of logits: .npy, .npz, .csv, .parquet or .safetensors."
TABLE_FORMATS = ".csv, .parquet or a folder of .parquet files"

Labels = Annotated[
    str | None,
    typer.Option(
        metavar="FILE[:NAME]",
        help="The true class of each row: its index from 0, or its name.",
        show_default=False,
    ),
]
Probabilities = Annotated[
    bool, typer.Option("--probabilities", help="LOGITS contains probabilities.")
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
