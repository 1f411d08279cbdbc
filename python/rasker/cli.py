"""The `rasker` program: scheduler, worker, sql, explain, story, config, info."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

_PORT = 8786


def _parser() -> argparse.ArgumentParser:
    import argparse

    from rasker._version import __version__

    parser = argparse.ArgumentParser(
        prog="rasker", description="Parallel computing in Python on one fast engine."
    )
    parser.add_argument("--version", action="version", version=f"rasker {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_scheduler(commands)
    _add_worker(commands)
    _add_sql(commands)
    _add_config(commands)
    _add_questions(commands)
    info = commands.add_parser("info", help="about this installation")
    info.add_subparsers(dest="what", required=True).add_parser(
        "versions", help="versions of Python and packages, as JSON"
    )
    return parser


def _add_scheduler(commands: Any) -> None:
    p = commands.add_parser("scheduler", help="start a scheduler")
    p.add_argument("--host", default="127.0.0.1", help="interface to listen on (127.0.0.1)")
    p.add_argument("--port", type=int, default=_PORT, help=f"port; 0 takes a free one ({_PORT})")
    p.add_argument("--name", help="for people")
    p.add_argument(
        "--scheduler-file",
        help="write address, certificate fingerprint and token to this file (mode 0600)",
    )
    p.add_argument("--token-file", help="the token that peers must show")
    p.add_argument("--tls-cert", help="certificate of the scheduler, PEM")
    p.add_argument("--tls-key", help="key of the certificate, PEM")
    p.add_argument(
        "--insecure",
        action="store_true",
        help="listen on other interfaces than loopback without TLS",
    )
    p.add_argument("--idle-timeout", help="end after this time without work, for instance '1 hour'")
    p.add_argument(
        "--preload", action="append", default=[], help="module or file to import first; repeatable"
    )


def _add_questions(commands: Any) -> None:
    for name, text in (
        ("explain", "say why a task is not done"),
        ("story", "say what has happened to a task"),
    ):
        p = commands.add_parser(name, help=text)
        p.add_argument("key", help="of the task, as future.key or str(future) says it")
        p.add_argument("address", nargs="?", help="of the scheduler, for instance tcp://host:8786")
        p.add_argument("--scheduler-file", help="the file that the scheduler has written")


def _client_of(args: Any) -> Any:
    from rasker import config
    from rasker.distributed import Client

    if args.scheduler_file is not None:
        return Client(scheduler_file=args.scheduler_file, set_as_default=False)
    address = args.address or config.get("scheduler-address", None)
    if address is None:
        raise ValueError("name the scheduler: its address, or --scheduler-file")
    return Client(address, set_as_default=False)


def _run_explain(args: Any) -> int:
    with _client_of(args) as client:
        print(client.explain(args.key))
    return 0


def _run_story(args: Any) -> int:
    from datetime import datetime

    with _client_of(args) as client:
        story = client.story(args.key)
    for _, start, finish, _, cause, time in story:
        print(f"{datetime.fromtimestamp(time):%H:%M:%S.%f}  {start} -> {finish}: {cause}")
    if not story:
        print(f"nothing is remembered of {args.key!r}", file=sys.stderr)
    return 0 if story else 1


def _add_sql(commands: Any) -> None:
    from rasker.sql.shell import add_parser

    add_parser(commands)


def _run_sql(args: argparse.Namespace) -> int:
    from rasker.sql.shell import run

    return run(args)


def _add_worker(commands: Any) -> None:
    import argparse

    p = commands.add_parser("worker", help="start a worker and join a scheduler")
    p.add_argument("address", nargs="?", help="of the scheduler, for instance tcp://host:8786")
    p.add_argument("--scheduler-file", help="the file that the scheduler has written")
    p.add_argument("--host", help="interface to serve values on; default: the one that leads to the scheduler")
    p.add_argument("--port", type=int, default=0, help="port to serve on; 0 takes a free one (0)")
    p.add_argument("--name", help="unique; default made from the address")
    p.add_argument("--nthreads", type=int, help="threads of each executor (1, or all cores)")
    p.add_argument(
        "--nworkers", default="auto", help="executor processes; auto or -1: one per core"
    )
    p.add_argument(
        "--memory-limit", default="auto", help="'auto', '4GiB', a part such as 0.5, or 0 for none"
    )
    p.add_argument("--resources", help="what the worker offers, for instance 'GPU=1 disk=2'")
    p.add_argument("--local-directory", help="where to spill")
    p.add_argument("--token-file", help="the token of the scheduler")
    p.add_argument("--tls-ca-file", help="the certificate that has signed the scheduler's")
    p.add_argument("--tls-fingerprint", help="of the scheduler's own certificate")
    p.add_argument("--tls-cert", help="certificate of the worker, PEM; default: made on the spot")
    p.add_argument("--tls-key", help="key of the certificate, PEM")
    p.add_argument(
        "--insecure",
        action="store_true",
        help="serve values on other interfaces than loopback without TLS",
    )
    p.add_argument(
        "--threads",
        action="store_true",
        help="run Python in threads of the worker instead of executor processes",
    )
    p.add_argument(
        "--no-python",
        action="store_true",
        help="run native tasks only: no executors are started",
    )
    p.add_argument("--death-timeout", help="end after this time without a scheduler")
    p.add_argument(
        "--lifetime", help="retire after this time, for instance '1 hour'; work and results move on"
    )
    p.add_argument(
        "--lifetime-stagger", help="the lifetime differs by so much from worker to worker ('0 s')"
    )
    p.add_argument(
        "--lifetime-restart",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="begin anew when the lifetime is over",
    )
    p.add_argument(
        "--preload", action="append", default=[], help="module or file to import first; repeatable"
    )


def _add_config(commands: Any) -> None:
    p = commands.add_parser("config", help="read and write configuration")
    what = p.add_subparsers(dest="what", required=True)
    get = what.add_parser("get", help="print a value")
    get.add_argument("key")
    put = what.add_parser("set", help="write a value to a YAML file")
    put.add_argument("key")
    put.add_argument("value")
    put.add_argument("--file", help="default: ~/.config/rasker/rasker.yaml")
    find = what.add_parser("find", help="print the files that set a key")
    find.add_argument("key")
    what.add_parser("list", help="print everything")


def _resources(text: str | None) -> dict[str, float] | None:
    """The resources in a text such as 'GPU=1 disk=2'."""
    if not text:
        return None
    result = {}
    for part in text.replace(",", " ").split():
        name, sign, amount = part.partition("=")
        try:
            result[name] = float(amount)
        except ValueError:
            sign = ""
        if not sign or not name:
            raise ValueError(f"resource {part!r} is not of the form name=amount, such as GPU=1")
    return result


def _run_scheduler(args: Any) -> int:
    from rasker import _native, config
    from rasker.utils import parse_timedelta

    return _native.run_scheduler(
        host=args.host,
        port=args.port,
        scheduler_file=args.scheduler_file,
        token_file=args.token_file,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        insecure=args.insecure,
        name=args.name,
        idle_timeout=parse_timedelta(
            args.idle_timeout or config.get("distributed.scheduler.idle-timeout", None)
        ),
        preload=args.preload,
    )


def _lifetime(args: Any) -> dict[str, Any]:
    """What the options say of a worker's life, and the configuration where they say nothing."""
    from rasker import config
    from rasker.utils import parse_timedelta

    def asked(name: str, option: Any) -> Any:
        if option is not None:
            return option
        return config.get(f"distributed.worker.lifetime.{name}", None)

    return {
        "duration": parse_timedelta(asked("duration", args.lifetime)),
        "stagger": parse_timedelta(asked("stagger", args.lifetime_stagger)) or 0.0,
        "restart": bool(asked("restart", args.lifetime_restart)),
    }


def _run_worker(args: Any) -> int:
    from rasker import _native, config
    from rasker.distributed.machine import CPU_COUNT, memory_limit_of, memory_shares
    from rasker.utils import parse_timedelta

    resources = _resources(args.resources)
    address = args.address or config.get("scheduler-address", None)
    if address is None and args.scheduler_file is None:
        raise ValueError("worker needs the address of a scheduler, or --scheduler-file")
    if address is not None and "://" not in address:
        address = f"tcp://{address}"
    if args.nthreads is not None and args.nthreads < 1:
        raise ValueError(f"--nthreads must be 1 or more, not {args.nthreads}")
    if args.nworkers in ("auto", "-1"):
        is_one = args.threads or args.no_python
        nworkers = 1 if is_one else max(1, CPU_COUNT // (args.nthreads or 1))
    else:
        nworkers = int(args.nworkers)
        if nworkers < 1:
            raise ValueError(f"--nworkers must be 1 or more, or auto, not {nworkers}")
    nthreads = args.nthreads or max(1, CPU_COUNT // (1 if args.threads else nworkers))
    return _native.run_worker(
        address,
        scheduler_file=args.scheduler_file,
        host=args.host,
        port=args.port,
        name=args.name,
        nthreads=nthreads,
        nworkers=nworkers,
        # One program is one worker here, with so many executors: the limit is for all of them.
        memory_limit=memory_limit_of(args.memory_limit, 1),
        resources=resources,
        preload=args.preload,
        memory=memory_shares(),
        local_directory=args.local_directory or config.get("temporary-directory", None),
        token_file=args.token_file,
        tls_ca_file=args.tls_ca_file,
        tls_fingerprint=args.tls_fingerprint,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        insecure=args.insecure,
        processes=not args.threads,
        python=not args.no_python,
        death_timeout=parse_timedelta(args.death_timeout),
        lifetime=_lifetime(args),
    )


def _run_config(args: Any) -> int:
    import yaml

    from rasker import config

    if args.what == "list":
        print(yaml.safe_dump(dict(config.config), default_flow_style=False).rstrip())
        return 0
    if args.what == "find":
        found = list(config.paths_containing_key(args.key))
        for path in found:
            print(path)
        if not found:
            print(f"no file sets {args.key!r}; searched {', '.join(config.paths)}", file=sys.stderr)
        return 0 if found else 1
    if args.what == "get":
        value = config.get(args.key)
        print(value if not isinstance(value, dict) else yaml.safe_dump(value).rstrip())
        return 0
    return _write_config(args)


def _write_config(args: Any) -> int:
    import os

    import yaml

    from rasker import config

    path = args.file or os.path.join(config.PATH, "rasker.yaml")
    data: dict[str, Any] = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            data = yaml.safe_load(stream) or {}
    value = config.interpret_value(args.value)
    config.set({args.key: value}, config=data)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    # Written beside and renamed: a full disk must not cost the user the old file.
    part = f"{path}.{os.getpid()}"
    with open(part, "w", encoding="utf-8") as stream:
        yaml.safe_dump(data, stream, default_flow_style=False)
    os.replace(part, path)
    print(f"{args.key} = {value!r} in {path}")
    return 0


def _run_info(args: Any) -> int:
    import json

    from rasker.distributed.versions import collect

    print(json.dumps(collect(), indent=2))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; default those of the process.

    Returns
    -------
    int
        The exit status.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    runners = {
        "scheduler": _run_scheduler,
        "worker": _run_worker,
        "sql": _run_sql,
        "config": _run_config,
        "explain": _run_explain,
        "story": _run_story,
        "info": _run_info,
    }
    if args.command is None:
        parser.print_help()
        return 2
    try:
        return runners[args.command](args)
    except (ValueError, KeyError, OSError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"rasker {args.command}: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
