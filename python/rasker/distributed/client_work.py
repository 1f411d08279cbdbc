"""The part of `Client` that submits work and brings results back."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

from rasker.annotations import make_options, worker_list
from rasker.distributed.future import Future, _seconds
from rasker.distributed.future_list import FutureList, handles_of
from rasker.distributed.not_built import not_built
from rasker.typing import no_default


class ClientWork:
    """Methods of `Client` for single calls, maps and values."""

    if TYPE_CHECKING:
        _session: Any
        _do: Callable[..., Any]

    def submit(
        self,
        func: Callable[..., Any],
        *args: Any,
        key: Any = None,
        workers: Any = None,
        resources: Any = None,
        retries: int | None = None,
        priority: float = 0,
        fifo_timeout: Any = "100 ms",
        allow_other_workers: bool = False,
        actor: bool = False,
        actors: bool = False,
        pure: bool = True,
        **kwargs: Any,
    ) -> Future:
        """Run ``func(*args, **kwargs)`` on the cluster.

        Parameters
        ----------
        func : callable
        *args, **kwargs
            Arguments.  Futures among them, also inside lists, tuples, sets and dicts, stand for
            their results.
        key : str, optional
            The name of the task.  Default: made from the function and the arguments.
        workers : str or list of str, optional
            Addresses, names or hosts of workers that may run it.
        resources : dict of str to float, optional
            What a worker must have free.
        retries : int, optional
            How many times it is tried again after an exception.
        priority : float, default 0
            Higher runs earlier.
        fifo_timeout : str, optional
            Has no meaning here: tasks are ordered by priority, then by age.
        allow_other_workers : bool, default False
            Make `workers` a preference.
        actor, actors : bool
            Not built yet.
        pure : bool, default True
            Equal calls share a task; False for functions with effects or randomness.

        Returns
        -------
        Future
            At once.

        Raises
        ------
        TypeError
            When called, if `func` is not callable, or an argument cannot be pickled.

        Examples
        --------
        >>> client.submit(sum, [1, 2]).result()  # doctest: +SKIP
        3
        """
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}; args come after it")
        if actor or actors:
            not_built("submit(…, actor=True)", "keep state in the values that tasks return")
        options = None
        if workers is not None or resources or retries or priority or not pure:
            options = make_options(
                priority=priority,
                retries=retries,
                workers=workers,
                allow_other_workers=allow_other_workers,
                resources=resources,
                pure=pure,
            )
        made: Future = self._session.submit(func, args, kwargs or None, key, options)
        return made

    def map(
        self,
        func: Callable[..., Any],
        *iterables: Collection[Any],
        key: str | list[Any] | None = None,
        workers: Any = None,
        retries: int | None = None,
        resources: Any = None,
        priority: float = 0,
        allow_other_workers: bool = False,
        fifo_timeout: Any = "100 ms",
        actor: bool = False,
        actors: bool = False,
        pure: bool = True,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> FutureList:
        """Run `func` on each item of an iterable, or on the items of several side by side.

        Parameters
        ----------
        func : callable
        *iterables : iterable
            Lists, ranges, futures, iterators; the shortest ends it.  A range is sent as a range.
        key : str or list, optional
            The first part of the keys, or all keys.
        batch_size : int, optional
            Has no meaning here: tasks travel in batches anyway.
        workers, retries, resources, priority, allow_other_workers, pure
            As for `submit`.
        **kwargs
            The same for each call.

        Returns
        -------
        FutureList
            At once; a list of futures named ``name-token-i``.

        Raises
        ------
        TypeError
            When called, if `func` is not callable or there is no iterable.
        ValueError
            When called, if a list of keys has another length than the iterables.

        Examples
        --------
        >>> client.gather(client.map(pow, [2, 3], [10, 2]))  # doctest: +SKIP
        [1024, 9]
        """
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        if actor or actors:
            not_built("map(…, actor=True)", "keep state in the values that tasks return")
        if not iterables:
            raise TypeError("map needs at least one iterable")
        options = make_options(
            priority=priority,
            retries=retries,
            workers=workers,
            allow_other_workers=allow_other_workers,
            resources=resources,
            pure=pure,
        )
        if isinstance(key, (list, tuple, set)):
            key = list(key)
            iterables = tuple([x if hasattr(x, "__len__") else list(x) for x in iterables])
            n = min([len(x) for x in iterables])
            if len(key) != n:
                raise ValueError(f"map has {n} calls and {len(key)} keys; give a key for each")
        parts = tuple([handles_of(x) if isinstance(x, FutureList) else x for x in iterables])
        made: FutureList = self._session.map(func, parts, kwargs or None, key, options)
        return made

    def gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, asynchronous: Any = None
    ) -> Any:
        """Wait for results and bring them here.

        Parameters
        ----------
        futures : future, or nested lists, tuples, sets and dicts of futures
        errors : {'raise', 'skip'}, default 'raise'
            Raise the exception of a failed task, or leave its result out.
        direct : bool, optional
            Has no meaning here.

        Returns
        -------
        object
            Results in the nesting of `futures`.  A lazy list gives a list.

        Raises
        ------
        Exception
            What a task raised.
        CancelledError
            If a task was cancelled.

        Examples
        --------
        >>> client.gather({"x": client.submit(abs, -1)})  # doctest: +SKIP
        {'x': 1}
        """
        if errors not in ("raise", "skip"):
            raise ValueError(f"errors must be 'raise' or 'skip', not {errors!r}")
        return self._do(self._gather, futures, errors == "skip", asynchronous=asynchronous)

    def _gather(self, futures: Any, skip: bool) -> Any:
        if isinstance(futures, FutureList):
            return self._session.values(handles_of(futures), skip, None)
        if isinstance(futures, Future):
            values = self._session.values([futures], skip, None)
            return values[0] if values else None
        if type(futures) is list and all([isinstance(f, Future) for f in futures]):
            return self._session.values(futures, skip, None)
        return self._gather_nested(futures, skip)

    def _gather_nested(self, futures: Any, skip: bool) -> Any:
        from rasker.distributed.nesting import collect_futures, put_values

        if hasattr(futures, "__next__"):
            futures = list(futures)
        found = collect_futures(futures)
        values: dict[Any, Any]
        if skip:
            self._session.wait(found, len(found), None)
            found = [f for f in found if f.status == "finished"]
        values = dict(zip(found, self._session.values(found, False, None), strict=True))
        return put_values(futures, values)

    def scatter(
        self,
        data: Any,
        workers: Any = None,
        broadcast: bool = False,
        direct: Any = None,
        hash: bool = True,
        timeout: Any = no_default,
        asynchronous: Any = None,
    ) -> Any:
        """Send values to the cluster, to be used by many tasks.

        Parameters
        ----------
        data : list, tuple, set, dict, iterator or object
            A container sends its items; anything else is one value.
        workers : str or list of str, optional
            Where to.
        broadcast : bool, default False
            To all workers, or all of `workers`.
        direct : bool, optional
            Has no meaning here.
        hash : bool, default True
            Name values by their content, so that equal ones are sent once.
        timeout : float or str, seconds, optional

        Returns
        -------
        Future, or list, tuple, set or dict of futures
            In the shape of `data`; for a dict the keys of the tasks are the keys of the dict.

        Examples
        --------
        >>> x, y = client.scatter([1, 2])  # doctest: +SKIP
        """
        seconds = None if timeout is no_default else _seconds(timeout)
        return self._do(
            self._scatter, data, workers, broadcast, hash, seconds, asynchronous=asynchronous
        )

    def _scatter(
        self, data: Any, workers: Any, broadcast: bool, hash: bool, timeout: float | None
    ) -> Any:
        kind = type(data)
        many = kind in (list, tuple, set, frozenset, dict, range) or hasattr(kind, "__next__")
        if kind is dict:
            keys, values = list(data), list(data.values())
        else:
            values = list(data) if many else [data]
            keys = [_name_of(v, hash) for v in values]
        names = worker_list(workers)
        futures = self._session.scatter(values, keys, names, broadcast, timeout)
        if kind is dict:
            return dict(zip(keys, futures, strict=True))
        if not many:
            return futures[0]
        return kind(futures) if kind in (tuple, set, frozenset) else list(futures)

    def cancel(
        self,
        futures: Any,
        asynchronous: Any = None,
        force: bool = False,
        reason: str | None = None,
        msg: str | None = None,
    ) -> Any:
        """Cancel tasks that no other client wants.

        Parameters
        ----------
        futures : future, collection or nested containers of them
        force : bool, default False
            Also tasks that another client wants: not built yet.
        reason, msg : str, optional
            Shown to who waits for a result.
        """
        if force:
            not_built("cancel(…, force=True)", "cancel in each client")
        text = ": ".join([t for t in (reason, msg) if t]) or "cancelled by its client"
        found = self.futures_of(futures)
        return self._do(self._session.cancel, found, text, asynchronous=asynchronous)

    def retry(self, futures: Any, asynchronous: Any = None) -> Any:
        """Run failed tasks again.

        Parameters
        ----------
        futures : future, collection or nested containers of them
        """
        found = self.futures_of(futures)
        return self._do(self._session.retry, found, asynchronous=asynchronous)

    def futures_of(self, futures: Any) -> list[Future]:
        """The futures of this client inside containers and collections."""
        from rasker.distributed.waiting import futures_of

        return futures_of(futures, client=self)

    def get_executor(self, **kwargs: Any) -> Any:
        """A `concurrent.futures.Executor` over this client.

        Parameters
        ----------
        **kwargs
            Arguments of `submit` for all its tasks: `priority`, `retries`, `workers`, `resources`,
            `allow_other_workers`, `pure`, `fifo_timeout`.
        """
        from rasker.distributed.executor import ClientExecutor

        return ClientExecutor(self, **kwargs)


def _name_of(value: Any, hash: bool) -> str:
    from rasker.tokenize import tokenize
    from rasker.utils import typename

    name = typename(type(value)).rpartition(".")[2]
    if hash:
        return f"{name}-{tokenize(value)}"
    import uuid

    return f"{name}-{uuid.uuid4().hex}"
