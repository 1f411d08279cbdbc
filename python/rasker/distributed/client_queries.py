"""The part of `Client` that asks about the cluster and acts on all of it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

from rasker.annotations import worker_list
from rasker.distributed.future import Future, _seconds
from rasker.distributed.not_built import not_built
from rasker.exceptions import WorkerStartTimeoutError
from rasker.typing import no_default


class ClientQueries:
    """Methods of `Client` about the cluster as a whole."""

    if TYPE_CHECKING:
        _session: Any
        _do: Callable[..., Any]
        futures_of: Callable[..., list[Future]]

    def _query(self, what: str, argument: Any = None) -> Any:
        return self._do(self._session.query, what, argument, None)

    def _keys(self, futures: Any) -> list[Any] | None:
        if futures is None:
            return None
        return [f.key for f in self.futures_of(futures)]

    def scheduler_info(self, n_workers: int = -1, **kwargs: Any) -> Any:
        """What the scheduler says of itself and its workers.

        Parameters
        ----------
        n_workers : int, default -1
            How many workers to list; -1 for all.

        Returns
        -------
        dict
            With 'type', 'id', 'address' and 'workers' (address to dict with 'nthreads',
            'memory_limit' in bytes, 'name', 'status', 'resources', and 'metrics': 'memory' in use,
            'managed_bytes' of values in memory, 'spilled_bytes' on disk, whether it is 'paused',
            and what the 'disk' has done).
        """

        def ask() -> Any:
            info = dict(self._session.query("scheduler_info", None, None))
            if n_workers >= 0:
                info["workers"] = dict(list(info.get("workers", {}).items())[:n_workers])
            return info

        return self._do(ask)

    def bytes_sent(self) -> int:
        """How much this client has sent to the scheduler.

        Returns
        -------
        int, bytes
            As encoded for the wire; within one process only large submissions are counted.
        """
        return int(self._session.bytes_sent())

    def who_has(self, futures: Any = None, **kwargs: Any) -> Any:
        """Which workers hold which results.

        Parameters
        ----------
        futures : futures or collections, optional
            Default: all results.

        Returns
        -------
        dict of key to tuple of str
        """
        return self._query("who_has", self._keys(futures))

    def has_what(self, workers: Any = None, **kwargs: Any) -> Any:
        """Which results each worker holds.

        Parameters
        ----------
        workers : str or list of str, optional

        Returns
        -------
        dict of str to tuple of key
        """
        return self._query("has_what", worker_list(workers))

    def nthreads(self, workers: Any = None, **kwargs: Any) -> Any:
        """How many threads each worker has.

        Returns
        -------
        dict of str to int
        """
        return self._query("nthreads", worker_list(workers))

    def ncores(self, workers: Any = None, **kwargs: Any) -> Any:
        """The same as `nthreads`."""
        return self.nthreads(workers, **kwargs)

    def processing(self, workers: Any = None) -> Any:
        """The tasks that are with each worker now.

        Returns
        -------
        dict of str to tuple of key
        """
        return self._query("processing", worker_list(workers))

    def call_stack(self, futures: Any = None, keys: Any = None) -> Any:
        """Where running tasks are in their code.

        Parameters
        ----------
        futures : futures or collections, optional
        keys : list of key, optional
            Default: all running tasks.

        Returns
        -------
        dict of str to dict of key to tuple of str
        """
        asked = list(keys or []) + (self._keys(futures) or [])
        return self._query("call_stack", asked or None)

    def log_event(self, topic: Any, msg: Any) -> Any:
        """Keep a message under a topic, or several, on the scheduler.

        Parameters
        ----------
        topic : str or list of str
        msg : object
            Numbers, texts, and lists and dicts of them.
        """
        return self._query("log_event", (topic, msg))

    def get_events(self, topic: str | None = None) -> Any:
        """The messages under a topic, or under all.

        Returns
        -------
        tuple of (float, object), or dict of str to such
            Seconds since 1970, and the message.
        """
        return self._query("events", topic)

    def story(self, *keys_or_stimuli: Any, on_error: str = "raise") -> Any:
        """What has happened to tasks, as far as the scheduler remembers it.

        It remembers some ten thousands of events of all tasks, and those of a task until nobody
        wants it any more.

        Parameters
        ----------
        *keys_or_stimuli : key or future
        on_error : {'raise', 'ignore'}, default 'raise'
            For Dask's programs; one scheduler is asked, and what it says is the whole story.

        Returns
        -------
        list of tuple
            Key, state before, state after, an empty dict, cause, and seconds since 1970, in the
            order in which it happened.
        """
        asked = [k.key if isinstance(k, Future) else k for k in keys_or_stimuli]
        return self._query("story", asked) if asked else []

    def explain(self, key: Any) -> Any:
        """Why a task is not running, in words.

        Parameters
        ----------
        key : key or Future

        Returns
        -------
        str
        """
        return self._query("explain", key.key if isinstance(key, Future) else key)

    def retire_workers(self, workers: Any = None, names: Any = None, **kwargs: Any) -> Any:
        """Let workers end without losing what only they hold.

        They get no more work, finish what they run, hand their results to other workers, and end.
        A worker whose results have nowhere to go stays.

        Parameters
        ----------
        workers, names : str or list of str
            Addresses, names or hosts.

        Returns
        -------
        dict of str to dict
            The workers that ended, by address.

        Raises
        ------
        ValueError
            If no worker is named.
        """
        named = [*(worker_list(workers) or []), *(worker_list(names) or [])]
        if not named:
            raise ValueError("no worker is named; name those that are to end")
        return self._query("retire_workers", named)

    def replicate(
        self, futures: Any, n: int | None = None, workers: Any = None, **kwargs: Any
    ) -> Any:
        """Copy results to more workers.

        Parameters
        ----------
        futures : futures or collections
            Those that have no result yet are left out.
        n : int, optional
            How many workers are to hold each; default: all of them.
        workers : str or list of str, optional
            Where copies may go; default: anywhere.
        """
        named = list(worker_list(workers) or [])
        return self._query("replicate", (self._keys(futures), n or 2**31, named))

    def rebalance(self, futures: Any = None, workers: Any = None, **kwargs: Any) -> Any:
        """Move results from full workers to others.

        Results that tasks wait for stay where they are.

        Parameters
        ----------
        futures : futures or collections, optional
            Default: all results.
        workers : str or list of str, optional
            Default: all workers.
        """
        named = list(worker_list(workers) or [])
        return self._query("rebalance", (self._keys(futures) or [], named))

    def wait_for_workers(self, n_workers: int, timeout: Any = None) -> Any:
        """Wait until as many workers have joined.

        Parameters
        ----------
        n_workers : int, 1 or more
        timeout : float or str, seconds, optional

        Raises
        ------
        TimeoutError
            If it takes longer.
        """
        if not isinstance(n_workers, int) or n_workers < 1:
            raise ValueError(f"n_workers must be an int of 1 or more, not {n_workers!r}")
        return self._do(self._wait_for_workers, n_workers, _seconds(timeout))

    def _wait_for_workers(self, n_workers: int, timeout: float | None) -> None:
        from time import monotonic, sleep

        end = None if timeout is None else monotonic() + timeout
        pause = 0.001
        while (n := len(self._session.query("nthreads", None, timeout))) < n_workers:
            if end is not None and monotonic() > end:
                raise WorkerStartTimeoutError(n, n_workers, timeout or 0)
            sleep(pause)
            pause = min(2 * pause, 0.1)

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        workers: Any = None,
        wait: bool = True,
        nanny: bool = False,
        on_error: str = "raise",
        **kwargs: Any,
    ) -> Any:
        """Call a function on each worker now, beside its tasks.

        Parameters
        ----------
        function : callable
        *args, **kwargs
            Its arguments.
        workers : list of str, optional
            Default: all.
        wait : bool, default True
            Wait for the results.
        nanny : bool
            Has no meaning here: there are no nannies.
        on_error : {'raise', 'return', 'ignore'}, default 'raise'
            What to do with an exception on a worker.

        Returns
        -------
        dict of str to object
            The worker's address to what the function returned.

        Examples
        --------
        >>> import os
        >>> client.run(os.getpid)  # doctest: +SKIP
        {'tcp://127.0.0.1:40001': 1234}
        """
        if on_error not in ("raise", "return", "ignore"):
            raise ValueError(f"on_error must be 'raise', 'return' or 'ignore', not {on_error!r}")
        if nanny:
            not_built("run(…, nanny=True)", "workers have no nannies; leave it out")

        def call() -> Any:
            names = worker_list(workers)
            found = self._session.run(function, args, kwargs, names, wait, None)
            if on_error == "raise":
                for value in found.values():
                    if isinstance(value, BaseException):
                        raise value
            elif on_error == "ignore":
                return {k: v for k, v in found.items() if not isinstance(v, BaseException)}
            return found

        return self._do(call)

    def restart(self, timeout: Any = no_default, wait_for_workers: bool = True) -> Any:
        """Cancel all tasks of all clients, forget all results and start fresh executors.

        Parameters
        ----------
        timeout : float or str, seconds, optional
        wait_for_workers : bool, default True
            Wait until they are back.
        """
        seconds = None if timeout is no_default else _seconds(timeout)
        return self._do(self._session.restart, seconds)

    def get_versions(self, check: bool = False, packages: Any = None) -> Any:
        """Versions of Python and packages here and on the workers.

        Parameters
        ----------
        check : bool, default False
            Raise ValueError if they differ.
        packages : list of str, optional
            More packages to look at.

        Returns
        -------
        dict
            With 'client' and 'workers' (address to dict).
        """
        from rasker.distributed.versions import collect, compare

        def ask() -> Any:
            names = list(packages or ())
            found = {
                "scheduler": None,
                "workers": self._session.run(collect, (names,), {}, None, True, None),
                "client": collect(names),
            }
            if check:
                compare(found)
            return found

        return self._do(ask)

    def recreate_error_locally(self, future: Any) -> Any:
        """Run a failed task here, so that a debugger can look at it; raises what it raises.

        Parameters
        ----------
        future : Future
        """
        from rasker.distributed.recreate import recreate_error

        return self._do(recreate_error, self, future)

    def recreate_task_locally(self, future: Any) -> Any:
        """Run a task here, on the inputs that it had, and return its result.

        Parameters
        ----------
        future : Future
        """
        from rasker.distributed.recreate import recreate_task

        return self._do(recreate_task, self, future)
