"""Sample logs of lm-evaluation-harness: the log-likelihoods of the choices as logits.

``lm_eval --log_samples`` writes a line of JSON for each question (``samples_*.jsonl``; before
version 0.4.3 a JSON array). ``filtered_resps`` has a log-likelihood for each choice, ``arguments``
the texts that the model was given, ``target`` the true choice, ``acc`` the score of the harness.
https://github.com/EleutherAI/lm-evaluation-harness
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from logitlab._app.io.source import (
    ClassLabels,
    Logits,
    UserError,
    catch_read_errors,
    in_memory,
    pluralize,
)
from logitlab._rows import Floats

SUFFIX = ".jsonl"


class _Question(NamedTuple):
    place: str  # in the file, for messages: `line 3`, `element 3` of an array
    log_likelihoods: Floats
    by_number: int | None  # the true choice, if the target is its number
    by_text: int | None  # the true choice, if the target is its text
    target: Any
    acc: float | None

    @property
    def predicted(self) -> int:
        return int(self.log_likelihoods.argmax())

    @property
    def by_acc(self) -> int | None:
        """The true one of two choices: the predicted one or, if the answer is wrong, the other."""
        if len(self.log_likelihoods) != 2 or self.acc not in (0, 1):
            return None
        return self.predicted if self.acc == 1 else 1 - self.predicted


def read_samples(path: Path, source: str) -> Logits:
    """The logits of a sample log: questions with fewer choices than others end with -inf."""
    questions = [_question(f"{path}: {place}", place, sample) for place, sample in _samples(path)]
    z = np.full((len(questions), max(len(q.log_likelihoods) for q in questions)), -np.inf)
    for row, question in zip(z, questions, strict=True):
        row[: len(question.log_likelihoods)] = question.log_likelihoods
    return replace(in_memory(source, z), labels=lambda: _labels(path, questions))


def pad_choices(logits: Logits, classes: int) -> Logits:
    """The logits of a sample log with `classes` columns: the additional ones are -inf."""
    z = np.concatenate(list(logits.read()))
    missing = np.full((len(z), classes - logits.classes), -np.inf)
    return replace(in_memory(logits.source, np.hstack([z, missing])), labels=logits.labels)


def _samples(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of the file, with their places: `line 3`, `element 3` of an array."""
    with catch_read_errors(path):
        text = path.read_text("utf-8")
    found: list[tuple[str, Any]] = []
    if text.lstrip().startswith("["):
        try:
            found = [(f"element {i}", sample) for i, sample in enumerate(json.loads(text), 1)]
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not a JSON array: {error}") from None
    else:
        for number, line in enumerate(text.split("\n"), 1):
            try:
                found += [(f"line {number}", json.loads(line))] if line.strip() else []
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}: line {number} is not JSON: {error}") from None
    if not found:
        raise UserError(f"{path}: must have at least one question, got none")
    seen: dict[str, str] = {}
    for place, sample in found:
        if not isinstance(sample, dict):
            raise UserError(f"{path}: {place} must be a JSON object of a question")
        key = repr(sample.get("doc_id", place))
        if key in seen:
            raise UserError(
                f"{path}: {seen[key]} and {place} are of the same doc_id {key}; keep one "
                "filter and one repetition of each question"
            )
        seen[key] = place
    return found


def _question(where: str, place: str, sample: dict[str, Any]) -> _Question:
    """The question of an object; `where` is its file and place."""
    responses = sample.get("filtered_resps", sample.get("resps"))
    if not isinstance(responses, list) or not responses:
        raise UserError(f"{where} must have filtered_resps or resps, a list of choices")
    if any(map(_is_generated, responses)):
        raise UserError(
            f"{where} holds generated text, not log-likelihoods, got {str(responses)[:60]}; only "
            "multiple-choice tasks have logits"
        )
    try:
        log_likelihoods = np.array([_number(response) for response in responses])
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{where}: filtered_resps must hold the log-likelihood of each choice, got "
            f"{str(responses)[:60]}; only multiple-choice tasks have logits"
        ) from None
    if not (log_likelihoods < np.inf).all():
        wrong = log_likelihoods[~(log_likelihoods < np.inf)][0]
        raise UserError(f"{where}: a log-likelihood must be finite or -inf, got {wrong}")
    arguments = [_texts(a) for a in _values(sample.get("arguments", []))]
    if len(arguments) != len(responses):
        arguments = []
    n = len(responses)
    if "acc_mutual_info" in sample and n % 2 == 0:
        # The second half are the choices without the question, for mutual information.
        n //= 2
        log_likelihoods, arguments = log_likelihoods[:n], arguments[:n]
    if n < 2:
        raise UserError(
            f"{where}: a question must have 2 or more choices, got {n}; only "
            "multiple-choice tasks have logits"
        )
    target = sample.get("target")
    try:
        acc = float(sample["acc"])
    except (KeyError, TypeError, ValueError, OverflowError):
        acc = None
    return _Question(
        place, log_likelihoods, _by_number(target, n), _by_text(target, arguments), target, acc
    )


def _is_generated(response: Any) -> bool:
    """Whether a response is a text without the flag that follows a log-likelihood."""
    while isinstance(response, list) and len(response) == 1:
        response = response[0]
    return isinstance(response, str)


def _number(response: Any) -> float:
    """The log-likelihood of ``[-1.5, false]``, ``["-1.5", "False"]`` or ``[[-1.5, false]]``."""
    while isinstance(response, list) and response:
        response = response[0]
    if isinstance(response, bool):
        raise TypeError(f"must be a number, got {response}")
    return float(response)


def _values(x: Any) -> list[Any]:
    """The elements of a list, or the values of ``{"gen_args_0": ..., "gen_args_1": ...}``."""
    return list(x.values()) if isinstance(x, dict) else x if isinstance(x, list) else []


def _texts(argument: Any) -> tuple[str, str]:
    """The context and the continuation of a choice."""
    context, continuation, *_ = [*map(str, _values(argument)), "", ""]
    return context, continuation.strip()


def _by_number(target: Any, n: int) -> int | None:
    if isinstance(target, list) and len(target) == 1:
        target = target[0]
    text = str(target).strip()
    text = text[1:-1] if text.startswith("[") else text  # of a list with one number
    return int(text) if text.isascii() and text.isdigit() and int(text) < n else None


def _by_text(target: Any, arguments: list[tuple[str, str]]) -> int | None:
    """The first choice whose continuation is the target.

    Where the choices are in the context, all continuations are the same and say nothing.
    """
    texts = [continuation for _, continuation in arguments]
    text = str(target).strip()
    return texts.index(text) if text in texts and len(set(texts)) > 1 else None


def _labels(path: Path, questions: list[_Question]) -> ClassLabels:
    """The true choices: by `target`; else, of two choices, by `acc`."""
    acc = [q.acc for q in questions]
    predicted = np.array([q.predicted for q in questions])
    kinds = {"number": "by_number", "text": "by_text"}
    found = {
        kind: np.array(labels)
        for kind, name in kinds.items()
        if None not in (labels := [getattr(q, name) for q in questions])
    }
    if len(found) == 2 and (found["number"] != found["text"]).any():
        # Both are possible; the accuracy of the harness tells which.
        found = {kind: y for kind, y in found.items() if ((predicted == y) == acc).all()}
        if len(found) != 1:
            raise UserError(
                f"{path}: target may be the number or the text of a choice, which differ; give "
                "--labels"
            )
    if not found and None not in (by_acc := [q.by_acc for q in questions]):
        found = {"acc": np.array(by_acc)}
    if not found:
        wrong = next((q for q in questions if q.by_number is q.by_text is None), questions[0])
        raise UserError(
            f"{path}: {wrong.place}: target must be the number, from 0, or the text of one of "
            f"{len(wrong.log_likelihoods)} choices in every question, got "
            f"{str(wrong.target)[:60]!r}; give --labels"
        )
    kind, y = next(iter(found.items()))
    rows = pluralize(len(y), "question")
    mapping = f"Labels: target is the {kind} of the true choice, in {rows}"
    if kind == "acc":
        mapping = f"Labels: by acc, which tells the true one of two choices, in {rows}"
    if None in acc:
        return ClassLabels(y.astype(np.int64), f"{mapping}.")
    wrong_rows = int(((predicted == y) != np.array(acc)).sum())
    if wrong_rows:
        warning = (
            f"The predicted and true choices disagree with acc of the harness in "
            f"{pluralize(wrong_rows, 'question')}: check the labels."
        )
        return ClassLabels(y.astype(np.int64), f"{mapping}.", (warning,))
    mapping += f"; the accuracy is the mean of acc, {np.mean(np.array(acc, float)):.4f}."
    return ClassLabels(y.astype(np.int64), mapping)
