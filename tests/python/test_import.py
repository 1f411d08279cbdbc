"""What `import rasker` loads, and that the names are where users of Dask look for them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

HEAVY = ["asyncio", "yaml", "concurrent.futures", "inspect", "numpy", "pandas", "cloudpickle",
         "dataclasses", "typing", "logging"]  # fmt: skip


def _run(code):
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    loaded = _run("import sys, rasker; print(*sys.modules)")
    assert [m for m in HEAVY if m in loaded] == []


def test_delayed_stays_a_function_when_its_module_is_imported():
    code = "import rasker, rasker.delayed, rasker.base; print(type(rasker.delayed).__name__)"
    assert _run(code) == ["function"]


NAMES = {
    "rasker": "annotate compute delayed is_dask_collection optimize persist visualize get istask "
    "get_annotations config",
    "rasker.base": "tokenize normalize_token get_scheduler DaskMethodsMixin get_collection_names "
    "get_name_from_key replace_name_in_key clone_key named_schedulers unpack_collections "
    "compute_as_if_collection collections_to_dsk",
    "rasker.callbacks": "Callback",
    "rasker.core": "flatten istask get_dependencies toposort quote ishashable literal subs",
    "rasker.config": "collect collect_env collect_yaml ensure_file expand_environment_variables "
    "get merge pop refresh set update update_defaults canonical_name check_deprecations "
    "deserialize interpret_value paths_containing_key rename serialize",
    "rasker.delayed": "Delayed delayed",
    "rasker.diagnostics": "ProgressBar Profiler ResourceProfiler CacheProfiler visualize",
    "rasker.graph_manipulation": "bind checkpoint clone wait_on",
    "rasker.highlevelgraph": "HighLevelGraph Layer MaterializedLayer",
    "rasker.local": "get_sync get_async",
    "rasker.multiprocessing": "get",
    "rasker.optimization": "cull fuse inline inline_functions",
    "rasker.order": "order",
    "rasker.sizeof": "sizeof",
    "rasker.task_spec": "Task TaskRef Alias DataNode GraphNode List",
    "rasker.threaded": "get",
    "rasker.tokenize": "tokenize normalize_token TokenizationError",
    "rasker.typing": "DaskCollection HLGDaskCollection PostPersistCallable SchedulerGetCallable",
    "rasker.utils": "parse_bytes format_bytes parse_timedelta format_time key_split funcname "
    "typename M apply derived_from ensure_dict is_arraylike is_dataframe_like tmpfile "
    "SerializableLock memory_repr",
    "rasker.distributed": "Client Event Future LocalCluster Lock Nanny Queue SSHCluster Scheduler "
    "SchedulerPlugin Security Semaphore Variable Worker WorkerPlugin as_completed "
    "fire_and_forget futures_of get_client get_worker performance_report progress wait "
    "worker_client Actor ActorFuture Adaptive CancelledError KilledWorker MultiLock NannyPlugin "
    "PipInstall Reschedule SpecCluster Status TimeoutError UploadDirectory UploadFile "
    "default_client get_task_metadata get_task_stream print rejoin secede span warn "
    "BaseActorFuture CompatibleExecutor CondaInstall Environ InstallPlugin SubprocessCluster "
    "config connect local_client rpc sync",
}


@pytest.mark.parametrize("module", NAMES)
def test_the_names_of_dask_are_there(module):
    found = import_module(module)
    missing = [n for n in NAMES[module].split() if not hasattr(sys.modules[module], n)]
    assert not missing, f"{found} lacks {missing}"
