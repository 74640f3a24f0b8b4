.PHONY: ci test lint format

ci:
	bash .ci/run

test:
	python -m pytest

lint:
	ruff check && ruff format --check && mypy

format:
	ruff check --fix && ruff format
