.PHONY: ci test lint format sanitize

ci:
	bash .ci/run

test:
	python -m pytest

lint:
	ruff check && ruff format --check && mypy

format:
	ruff check --fix && ruff format

# The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, installed beside the library.
sanitize:
	pip install --quiet --no-deps --target build/sanitize \
		--config-settings=cmake.define.LOGITLAB_SANITIZE=ON .
	for isa in v2 v3 v4; do \
		LOGITLAB_ISA=$$isa PYTHONPATH=build/sanitize ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
		python -m pytest -q -p no:cacheprovider tests/test_kernels.py || exit 1; \
	done
	rm -rf build/sanitize
