#!/usr/bin/env bash
# Resolves locks/*.txt: one hashed list per service, one for developers, three to add for Spark, Trino and PyTorch. No addresses are written.
set -euo pipefail
uv=$(command -v uv || echo .millstream/uv/bin/uv)
ours=(); for p in backtest cli core drift expression features ingest serving tiles trainer; do ours+=(--no-emit-package "millstream-$p"); done
export UV_CUSTOM_COMPILE_COMMAND="make locks"
compile() { "$uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links "${ours[@]}" "$@"; }
compile pyproject.toml --group dev -o locks/dev.txt
# The image can do what its settings say, so it carries the extra.
compile services/ingest/pyproject.toml --extra jwt -c locks/dev.txt -o locks/ingest.txt
for s in features trainer serving drift; do
  compile "services/$s/pyproject.toml" -c locks/dev.txt -o "locks/$s.txt"
done
compile libs/cli/pyproject.toml -c locks/dev.txt -o locks/cli.txt
# PySpark alone is 450 MB: only `make spark` installs it.
compile libs/tiles/pyproject.toml --extra spark -c locks/dev.txt -o locks/spark.txt
compile libs/tiles/pyproject.toml --extra trino -c locks/dev.txt -o locks/trino.txt # 4 packages more, and a server: `make trino`
# PyTorch from PyPI is 4 GB on Linux, since its wheel loads CUDA's libraries wherever it runs: only `make torch` installs it. Left
# out is Triton, 1 GB more, which compiles for GPUs and which nothing here imports.
compile services/trainer/pyproject.toml --extra torch -c locks/dev.txt --overrides <(echo "triton; sys_platform == 'never'") -o locks/torch.txt
