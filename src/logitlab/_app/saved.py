"""The file of ``logitlab calibrate``: a calibrator, and what is known of the logits it takes."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from logitlab._app.io.json_values import json_values
from logitlab._app.io.lm_eval import pad_choices
from logitlab._app.io.passes import as_floating, logits_of_probabilities
from logitlab._app.io.source import SUFFIXES, Logits, UserError
from logitlab._app.rules import Rules, read_rules
from logitlab.calibration.base import Calibrator
from logitlab.calibration.saved import read_calibrator

FILE = "calibrator.safetensors"
# What LOGITS must contain: by whether they are probabilities, and of class 1 alone.
_INPUTS = {
    (False, False): "logits",
    (True, False): "probabilities",
    (False, True): "logit of class 1",
    (True, True): "probability of class 1",
}


@dataclass(frozen=True)
class SavedCalibrator:
    """A fitted calibrator for logits with columns of these names, or for probabilities."""

    path: Path
    calibrator: Calibrator
    names: tuple[str, ...] | None
    probabilities: bool
    one_score: bool  # of two classes the file has the score of class 1 alone
    details: dict[str, Any]  # rows, scores
    rules: Rules

    def as_bytes(self) -> bytes:
        """The contents of the file."""
        data: bytes = self.calibrator._to_bytes(
            {
                "names": self.names,
                "input": _INPUTS[self.probabilities, self.one_score],
                "rules": self.rules.as_json(),
                **json_values(self.details),
            }
        )
        return data

    def match_columns(self, source: Logits) -> Logits:
        """The logits with the classes of the calibrator; logits of others are refused.

        A sample log, whose longest question may have fewer choices, gets columns of -inf.
        """
        k = self.calibrator.n_features_in_
        if source.one_score != self.one_score:
            rule = "one number for each row, the" if self.one_score else f"{k} columns of"
            given = _INPUTS[self.probabilities, self.one_score]
            got = "one" if source.one_score else f"{source.classes} columns"
            raise UserError(
                f"{source.source}: must have {rule} {given}, as {self.path} was fitted to, "
                f"got {got}"
            )
        if source.is_sample_log and source.classes < k:
            return pad_choices(source, k)
        if source.is_sample_log and source.classes > k:
            raise UserError(
                f"{source.source}: a question must have at most {k} choices, as those that "
                f"{self.path} was fitted to, got {source.classes}"
            )
        if source.classes != k:
            raise UserError(
                f"{source.source}: must have the {k} classes of {self.path}, got {source.classes}"
            )
        for i, (expected, name) in enumerate(
            zip(self.names or (), source.names or (), strict=False)
        ):
            if expected != name:
                raise UserError(
                    f"{source.source}: column {i} must be {expected!r} as in {self.path}, "
                    f"got {name!r}"
                )
        return source

    def names_of(self, source: Logits) -> tuple[str, ...] | None:
        """The names of the classes, if the logits or the file have them."""
        return self.names if self.names is not None else source.names

    def as_logits(self, block: NDArray[Any], start: int, source: Logits) -> NDArray[Any]:
        """The logits of a block of rows, of which `start` is the first number."""
        if self.probabilities:
            advice = f"{self.path} was fitted to probabilities"
            return logits_of_probabilities(block, start, source, advice)
        return as_floating(block, source.dtype)


@contextlib.contextmanager
def catch_saved_errors(path: Path) -> Iterator[None]:
    """Turn an error of reading a saved file into a UserError."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from None
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "not enough memory to read the file"
        raise UserError(f"{path}: {reason}") from None


def saved_file(path: Path, name: str, argument: str, command: str) -> Path:
    """The file that `path` is, or `name` in the folder that it is; others are refused.

    `argument` is that of the command line, `command` the one that writes the file.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    file = path / name if path.is_dir() else path
    rule = f"{argument} must be {name}, or the folder that {command} wrote"
    if not file.is_file():
        raise UserError(f"{path}: {rule}, got a folder without {name}")
    if file.suffix.lower() in SUFFIXES and file.suffix.lower() != ".safetensors":
        raise UserError(f"{path}: {rule}, got a {file.suffix} file; {argument} comes first")
    return file


def read_saved(path: Path) -> SavedCalibrator:
    """The calibrator of a file, or of the folder that ``logitlab calibrate`` wrote it to."""
    path = saved_file(path, FILE, "CALIBRATOR", "logitlab calibrate")
    with catch_saved_errors(path):
        calibrator, details = read_calibrator(path)
    names, given = details.pop("names", None), details.pop("input", "logits")
    k = calibrator.n_features_in_
    if names is not None and not (
        isinstance(names, list) and len(names) == k and all(isinstance(n, str) for n in names)
    ):
        raise UserError(f"{path}: names must be the names of {k} classes")
    inputs = {name: key for key, name in _INPUTS.items()}
    if given not in inputs or (inputs[given][1] and k != 2):
        raise UserError(f"{path}: the input must be one of {', '.join(inputs)}, got {given!r}")
    try:
        rules = read_rules(details.pop("rules", {}), k)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(f"{path}: the decision rules are damaged") from None
    names = None if names is None else tuple(names)
    return SavedCalibrator(path, calibrator, names, *inputs[given], details, rules)
