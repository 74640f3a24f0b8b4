"""Mutation testing of the modules that compute: the share of the mutants that the tests kill.

``make mutants MODULES='_bins losses'`` tests some modules of `GROUPS`, ``make mutants`` all, with
mutmut in copies under build/mutants. It prints a line for each module and each survivor.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "mutants"

# A module, and the tests that hold it to its definition.
GROUPS = {
    "_bins": ["test_reliability", "test_resampling"],
    "_labels": ["test_labels"],
    "decomposition": ["test_reliability"],
    "reliability": ["test_reliability"],
    "smooth_calibration": ["test_reliability"],
    "resampling": ["test_resampling"],
    "scores": ["test_scores"],
    "probabilities": ["test_probabilities", "test_scipy_cases", "test_softmax_laws"],
    "losses": ["test_losses", "test_torch_autocast"],
    "derivatives": ["test_derivatives"],
    "sampling/bans": ["test_penalties", "test_penalty_errors"],
    "sampling/histories": ["test_penalties", "test_penalty_errors"],
    "sampling/penalties": ["test_penalties", "test_penalty_errors"],
    "sampling/calls": ["test_sampling", "test_truncation"],
    "sampling/draws": ["test_sampling", "test_stages"],
    "sampling/mirostat": ["test_sampler"],
    "sampling/requests": ["test_sampler"],
    "sampling/sampler": ["test_sampler", "test_sampling", "test_stages"],
    "sampling/settings": ["test_sampler", "test_stages"],
    "sampling/log_probs": ["test_support"],
    "sampling/speculative": ["test_speculative"],
    "support": ["test_support"],
    "_backends/reference": ["test_backends", "test_probabilities", "test_derivatives"],
    "_backends/reference_sampling": ["test_truncation", "test_sampling"],
    "_backends/reference_stages": ["test_truncation", "test_stages"],
    "_backends/targets": ["test_losses"],
    "calibration/temperature": ["test_calibration"],
    "calibration/affine": ["test_affine"],
    "calibration/objectives": ["test_affine"],
    "calibration/cross_fit": ["test_calibration"],
    "regression/solver": ["test_solver"],
    "regression/objective": ["test_regression", "test_regression_sample"],
    "regression/rows": ["test_regression", "test_regression_sample"],
    "regression/binary": ["test_regression_sample"],
    "regression/sample": ["test_regression_sample"],
    "regression/dataset": ["test_dataset"],
    "regression/design": ["test_formula"],
    "regression/elastic_net": ["test_elastic_net", "test_penalized_sums"],
    "regression/elastic_net_solver": ["test_elastic_net"],
    "regression/firth": ["test_firth"],
    "regression/leverages": ["test_firth"],
    "regression/path": ["test_regularization_path"],
    "regression/cross_validation": ["test_regularization_path"],
    "regression/penalized_sums": ["test_penalized_sums", "test_elastic_net"],
    "regression/posterior": ["test_posterior"],
    "regression/profile": ["test_profile"],
    "regression/quadratic": ["test_quadratic"],
    "regression/structured": ["test_quadratic"],
    "importance": ["test_importance"],
    "tables/infer": ["test_tables"],
    "tables/text": ["test_tables"],
    "tables/values": ["test_tables"],
    "regression/inference_sums": ["test_inference_results"],
    "regression/inference/covariance": ["test_inference", "test_inference_results"],
    "regression/inference/estimates": ["test_inference", "test_inference_results"],
    "regression/inference/hypothesis_tests": ["test_inference_tests"],
    "regression/inference/influence": ["test_influence"],
    "regression/inference/kept_rows": ["test_inference_results"],
    "regression/inference/marginal_effects": ["test_marginal_effects"],
    "regression/inference/predictions": ["test_inference_results"],
    "regression/inference/tables": ["test_inference", "test_inference_tables"],
}

CONFIG = """
[tool.mutmut]
source_paths = ["src/logitlab"]
only_mutate = ["src/logitlab/{module}.py"]
also_copy = ["src"]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver"
mutate_only_covered_lines = true
"""


# mutmut leaves a function with such a decorator alone.
DECORATOR = re.compile(r'^@(np\.errstate\(all="ignore"\)|_dispatch\.breaks_graph)\n', re.MULTILINE)


def strip_decorators(path: Path) -> None:
    """Take decorators off the functions of a module; no NumPy function in it warns then."""
    source = path.read_text("utf-8")
    stripped = DECORATOR.sub("", source)
    if "@np.errstate" in source:
        stripped += '\nnp.seterr(all="ignore")\n'
    path.write_text(stripped, "utf-8")


def run(module: str, package: Path) -> None:
    """Print the share of mutants of a module that its tests kill, and the survivors."""
    folder = WORK / module.replace("/", ".")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(package, folder / "src" / "logitlab")
    strip_decorators(folder / "src" / "logitlab" / f"{module}.py")
    shutil.copytree(ROOT / "tests", folder / "tests")
    tests = [f"tests/{test}.py" for test in GROUPS[module]]
    settings = (ROOT / "pyproject.toml").read_text() + CONFIG.format(module=module, tests=tests)
    (folder / "pyproject.toml").write_text(settings)
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mutmut"]
    options = {"cwd": folder, "env": os.environ | one_thread, "text": True}
    with (folder / "run.log").open("w") as log:
        subprocess.run([*command, "run"], stdout=log, stderr=log, check=False, **options)
    listed = subprocess.run(
        [*command, "results", "--all", "true"], capture_output=True, check=True, **options
    ).stdout
    states = dict(line.strip().rsplit(": ", 1) for line in listed.splitlines() if ": " in line)
    if not states:
        raise SystemExit(f"{module}: no mutant was tested; see {folder / 'run.log'}")
    tested = [name for name, state in states.items() if state not in ("no tests", "not checked")]
    alive = [name for name in tested if states[name] == "survived"]
    killed = len(tested) - len(alive)
    slow = sum(states[name] == "timeout" for name in tested)
    print(
        f"{module}: {killed} of {len(tested)} mutants killed, {slow} of these by a time limit; "
        f"{len(states)} made",
        flush=True,
    )
    for name in alive:
        print(f"  {name}", flush=True)


def main() -> None:
    import logitlab

    package = Path(logitlab.__file__).parent
    for module in sys.argv[1:] or GROUPS:
        run(module, package)


if __name__ == "__main__":
    main()
