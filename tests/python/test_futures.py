"""Futures and lists of them: states, errors, callbacks, waiting, and progress."""

from __future__ import annotations

import io
import pickle
import threading
import time
import traceback
from collections.abc import MutableSequence

import pytest

from rasker.distributed import as_completed, fire_and_forget, futures_of, progress, wait


def inc(x):
    return x + 1


def slow(x, delay):
    time.sleep(delay)
    return x


def outer(x):
    return inner(x)


def inner(x):
    return 1 / x


def test_a_result_that_takes_too_long_times_out(client):
    future = client.submit(slow, 1, 0.5, pure=False)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.02)
    with pytest.raises(TimeoutError):
        future.exception(timeout="20ms")
    assert future.status == "pending"
    assert not future.done()
    assert future.result(timeout=5) == 1


def test_errors_keep_their_type_and_the_frames_of_the_user(client):
    future = client.submit(outer, 0)
    error = future.exception()
    assert isinstance(error, ZeroDivisionError)
    assert future.status == "error"
    names = [frame.name for frame in traceback.extract_tb(future.traceback())]
    assert names[-2:] == ["outer", "inner"]
    with pytest.raises(ZeroDivisionError) as caught:
        future.result()
    shown = "".join(traceback.format_exception(caught.value))
    assert "inner" in shown
    assert "test_errors_keep_their_type" in shown


def test_a_success_has_no_exception(client):
    future = client.submit(inc, 1)
    assert future.exception() is None
    assert future.traceback() is None
    assert future.type is int


def test_a_failed_task_fails_only_its_dependants(client):
    bad = client.submit(outer, 0)
    below = client.submit(inc, bad)
    other = client.submit(inc, 1)
    with pytest.raises(ZeroDivisionError):
        below.result()
    assert other.result() == 2


def test_callbacks_run_once_with_the_future(client):
    seen, done = [], threading.Event()

    def note(future):
        seen.append(future.result())
        done.set()

    future = client.submit(slow, 5, 0.05, pure=False)
    future.add_done_callback(note)
    assert done.wait(5)
    future.add_done_callback(lambda f: seen.append(f.key))
    assert seen == [5, future.key]


def test_futures_are_equal_by_key(client):
    a, b = client.submit(inc, 1), client.submit(inc, 1)
    assert a == b
    assert len({a, b}) == 1
    assert a != client.submit(inc, 2)
    assert a.client is client


def test_a_future_survives_pickle(client):
    future = client.submit(inc, 1)
    assert pickle.loads(pickle.dumps(future)).result() == 2


def test_wait_returns_when_all_have_ended(client):
    futures = client.map(slow, [1, 2], [0.01, 0.05], pure=False)
    done, not_done = wait(futures)
    assert done == set(futures)
    assert not_done == set()
    assert wait([client.submit(outer, 0)]).not_done == set()
    assert wait([]) == (set(), set())


def test_wait_returns_when_the_first_has_ended(client):
    quick = client.submit(slow, 1, 0.01, pure=False)
    long = client.submit(slow, 2, 1, pure=False)
    done, not_done = wait([quick, long], return_when="FIRST_COMPLETED")
    assert done == {quick}
    assert not_done == {long}
    with pytest.raises(TimeoutError):
        wait(long, timeout=0.02)
    with pytest.raises(NotImplementedError, match="FIRST_EXCEPTION"):
        wait(long, return_when="FIRST_EXCEPTION")


def test_as_completed_gives_futures_as_they_end(client):
    futures = client.map(slow, range(5), [1.0, 0, 0, 0, 0], pure=False)
    found = [f.result() for f in as_completed(futures)]
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert found[-1] == 0
    pairs = list(as_completed(futures, with_results=True))
    assert sorted(value for _, value in pairs) == [0, 1, 2, 3, 4]
    assert all(f.result() == value for f, value in pairs)


def test_as_completed_can_be_fed_while_it_runs(client):
    waiting = as_completed([client.submit(inc, 0)])
    found = []
    for future in waiting:
        value = future.result()
        found.append(value)
        if value < 5:
            waiting.add(client.submit(inc, value))
    assert found == [1, 2, 3, 4, 5]
    assert waiting.is_empty()
    assert waiting.count() == 0


def test_as_completed_gives_batches(client):
    futures = client.map(inc, range(20))
    batches = list(as_completed(futures).batches())
    assert sorted(f.result() for batch in batches for f in batch) == list(range(1, 21))
    wait(futures)
    waiting = as_completed(futures, with_results=True)
    time.sleep(0.1)
    assert waiting.has_ready()
    assert waiting.count() == 20
    assert len(waiting.next_batch(block=False)) == 20
    assert waiting.next_batch(block=False) == []
    with pytest.raises(StopIteration):
        waiting.next()


def test_as_completed_raises_errors_or_gives_them(client):
    bad = client.submit(outer, 0)
    with pytest.raises(ZeroDivisionError):
        list(as_completed([bad], with_results=True))
    ((future, info),) = as_completed([bad], with_results=True, raise_errors=False)
    assert future == bad
    assert info[0] is ZeroDivisionError
    assert isinstance(info[1], ZeroDivisionError)
    assert [f.status for f in as_completed([bad])] == ["error"]


def test_as_completed_times_out_and_can_be_cleared(client):
    long = client.submit(slow, 1, 1, pure=False)
    with pytest.raises(TimeoutError):
        list(as_completed([long], timeout=0.05))
    waiting = as_completed([long])
    waiting.clear()
    assert list(waiting) == []
    with pytest.raises(TypeError, match="int"):
        as_completed([1])


def test_a_map_does_what_a_list_does(client):
    futures = client.map(inc, range(4))
    assert isinstance(futures, MutableSequence)
    assert futures == list(futures)
    assert futures != list(futures)[:-1]
    assert futures[0] in futures
    assert futures.index(futures[2]) == 2
    assert futures.count(futures[1]) == 1
    assert client.gather(futures + [client.submit(inc, 9)]) == [1, 2, 3, 4, 10]
    assert client.gather([client.submit(inc, 9)] + futures) == [10, 1, 2, 3, 4]
    assert client.gather(futures * 2) == [1, 2, 3, 4] * 2
    assert client.gather(list(reversed(futures))) == [4, 3, 2, 1]
    assert "more" in repr(futures)


def test_a_map_can_be_changed_like_a_list(client):
    futures = client.map(inc, range(4))
    last = futures.pop()
    assert last.result() == 4
    futures.append(last)
    futures.extend([last])
    futures.insert(0, last)
    assert client.gather(futures) == [4, 1, 2, 3, 4, 4]
    del futures[0]
    futures[0] = last
    assert client.gather(futures) == [4, 2, 3, 4, 4]
    futures.reverse()
    futures.remove(last)
    futures.sort(key=lambda f: f.result())
    assert client.gather(futures) == [2, 3, 4, 4]
    assert wait(futures).not_done == set()
    assert client.submit(sum, futures).result() == 13
    futures.clear()
    assert len(futures) == 0


def test_futures_are_found_in_containers_and_collections(client):
    from rasker import delayed

    a, b = client.submit(inc, 1), client.submit(inc, 2)
    assert set(futures_of([a, {"x": (b, a)}, 5])) == {a, b}
    kept = client.persist(delayed(inc)(1))
    assert [f.key for f in futures_of(kept)] == [kept.key]
    assert futures_of(1) == []


def test_fire_and_forget_runs_to_the_end(client, tmp_path):
    path = tmp_path / "written"

    def write(path):
        time.sleep(0.1)
        with open(path, "w") as f:
            f.write("done")

    fire_and_forget(client.submit(write, str(path), pure=False))
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


def test_progress_writes_a_full_bar_also_after_errors(client):
    out = io.StringIO()
    futures = [*client.map(inc, range(10)), client.submit(outer, 0)]
    progress(futures, notebook=False, out=out)
    assert "100%" in out.getvalue()
    assert "11 of 11, 1 failed" in out.getvalue()


def test_progress_in_a_notebook_has_a_bar_for_each_kind(client):
    futures = [*client.map(inc, range(3)), client.submit(slow, 1, 0)]
    wait(futures)
    html = progress(futures, notebook=True)._repr_html_()
    assert "inc" in html
    assert "slow" in html
    assert "3 / 3" in html
