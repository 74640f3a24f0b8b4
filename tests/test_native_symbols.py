"""The kernels of an instruction set emit no symbols that the linker could merge with others.

A template or inline function with external linkage is a weak symbol, of which the linker keeps one
copy. If that were the copy built for AVX-512, older processors would stop at it.
"""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src/native"
VARIANTS = {
    "x86_64": [("v3", "-march=x86-64-v3"), ("v4", "-march=x86-64-v4")],
    "aarch64": [("neon", "-march=armv8-a")],
}.get(platform.machine(), [])

pytestmark = pytest.mark.skipif(
    not (VARIANTS and shutil.which("g++") and shutil.which("nm")),
    reason="needs g++ and nm on x86-64 or 64-bit Arm",
)


def weak_functions(source, march, folder):
    """The weak symbols defined by a source file; without optimisation nothing is inlined."""
    target = folder / "kernels.o"
    options = ["-std=c++17", "-O0", "-ffp-contract=off", march, "-I", SOURCES]
    subprocess.run(["g++", *options, "-c", source, "-o", target], check=True)
    names = subprocess.run(
        ["nm", "--demangle", "--defined-only", target], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    symbols = [line.split(maxsplit=2)[1:] for line in names]
    # The pointer to the exception handler of the language is not code.
    return [name for kind, name in symbols if kind in "WVu" and not name.startswith("DW.ref.")]


@pytest.mark.parametrize(("variant", "march"), VARIANTS)
def test_kernels_have_no_weak_symbols(variant, march, tmp_path):
    assert weak_functions(SOURCES / f"{variant}.cpp", march, tmp_path) == []


def test_a_standard_container_is_found(tmp_path):
    source = tmp_path / "vector.cpp"
    source.write_text("#include <vector>\nvoid f(std::vector<double>& x) { x.push_back(1); }\n")
    assert weak_functions(source, VARIANTS[0][1], tmp_path)
