"""Files in S3 and over HTTP, from servers that run beside the tests."""

from __future__ import annotations

import functools
import http.server
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from rasker.sql import Context, SqlError

TABLE = pa.table({"id": list(range(100)), "name": [f"n{i % 7}" for i in range(100)]})


@pytest.fixture(scope="module")
def s3():
    """Options of a server with an empty bucket `data`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 30
        while True:
            try:
                request = urllib.request.Request(f"{endpoint}/data", method="PUT")
                urllib.request.urlopen(request, timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server ended"
                assert time.monotonic() < until, "the S3 server does not answer"
                time.sleep(0.1)
        yield {"endpoint_url": endpoint, "key": "k", "secret": "s", "region": "us-east-1"}
    finally:
        server.kill()
        server.wait()


def put(s3, key, body):
    request = urllib.request.Request(f"{s3['endpoint_url']}/data/{key}", data=body, method="PUT")
    # Without a type of its own the server takes it for a form, and may wait for more of it.
    request.add_header("Content-Type", "application/octet-stream")
    urllib.request.urlopen(request, timeout=30).close()


def parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def test_files_of_a_bucket_are_a_table(s3):
    put(s3, "t/year=2023/a.parquet", parquet(TABLE.slice(0, 40)))
    put(s3, "t/year=2024/b.parquet", parquet(TABLE.slice(40)))
    put(s3, "t/_SUCCESS", b"")
    ctx = Context(False)
    ctx.create_table("t", "s3://data/t/", storage_options=s3)
    assert ctx.sql("SELECT year, count(*), sum(id) FROM t GROUP BY year ORDER BY 1").fetchall() == [
        (2023, 40, sum(range(40))),
        (2024, 60, sum(range(40, 100))),
    ]
    ctx.create_table("u", "s3://data/t/*/b.parquet", storage_options=s3)
    assert ctx.sql("SELECT min(id) FROM u").fetchall() == [(40,)]


def test_rows_are_written_to_a_bucket(s3):
    ctx = Context(False)
    put(s3, "one.csv", b"a,b\n1,x\n2,y\n")
    ctx.create_table("one", "s3://data/one.csv", storage_options=s3)
    assert ctx.sql("SELECT * FROM one WHERE a > 1").to_parquet("s3://data/out/") == 1
    ctx.create_table("out", "s3://data/out/", storage_options=s3)
    assert ctx.sql("SELECT b FROM out").fetchall() == [("y",)]


def test_a_missing_key_and_a_missing_bucket_say_so(s3):
    ctx = Context(False)
    with pytest.raises(FileNotFoundError, match="s3://data/no.parquet"):
        ctx.create_table("t", "s3://data/no.parquet", storage_options=s3)
    with pytest.raises(FileNotFoundError, match=r"s3://data/no/\*.parquet"):
        ctx.create_table("t", "s3://data/no/*.parquet", storage_options=s3)
    with pytest.raises(SqlError, match="option colour is not known"):
        ctx.create_table("t", "s3://data/t/", storage_options={**s3, "colour": "red"})


def test_workers_open_the_same_stores(s3):
    from rasker import config
    from rasker.distributed import Client

    put(s3, "w/a.parquet", parquet(TABLE))
    with (
        Client(n_workers=2, threads_per_worker=1, set_as_default=False) as client,
        config.set({"sql.whole-below": 0}),
    ):
        ctx = Context(client)
        ctx.create_table("w", "s3://data/w/", storage_options=s3)
        (future,) = ctx.sql("SELECT count(DISTINCT name) AS n FROM w").to_futures()
        assert future.result().to_pylist() == [{"n": 7}]


@pytest.fixture
def web(tmp_path):
    """The address of a server that serves the folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_file_is_read_over_http(web, tmp_path):
    pa.csv.write_csv(TABLE, tmp_path / "t.csv")
    ctx = Context(False)
    assert ctx.sql(f"SELECT sum(id) FROM '{web}/t.csv'").fetchall() == [(4950,)]
    with pytest.raises(FileNotFoundError, match="no.csv"):
        ctx.sql(f"SELECT 1 FROM '{web}/no.csv'")
    with pytest.raises(NotImplementedError, match="cannot be listed"):
        ctx.sql(f"SELECT 1 FROM '{web}/*.csv'")
