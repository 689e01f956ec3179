"""What must differ between two children of one seed, as far as making it differ takes Python code.

`random`, numpy's own generator (the one instance that numpy keeps: scipy, scikit-learn and pandas draw from
it, too) and OpenSSL have new state already, from native code, when this runs as the first handler of
PyOS_AfterFork_Child (the first, if mitosis was imported first).

What cannot be made to differ: the seed of str hashes, for dictionaries and sets lie in memory by it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

from . import _native

# More than any generator here has as its strength.
_SEED_BYTES = 64


def end_half_child(error: BaseException) -> NoReturn:
    """Print `error` and end this child: what it was forked for did not begin."""
    try:
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
    finally:
        os._exit(_native.STATUS_HALF_CHILD)


def _numpy(mtrand: ModuleType) -> None:
    generator = mtrand._rand._bit_generator
    if type(generator).__name__ != "MT19937":  # somebody has called numpy.random.set_bit_generator
        generator.state = type(generator)().state
        mtrand._rand.standard_normal()  # the seed may have kept the second of a pair


def _torch(random: ModuleType) -> None:
    random.default_generator.seed()  # the CPU's


def _uuid(uuid: ModuleType) -> None:
    # libuuid keeps a descriptor that is not open here; without it the sequence is of `random`.
    uuid._generate_time_safe = None  # type: ignore[attr-defined]
    for name in ("_node", "_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7"):
        if hasattr(uuid, name):
            setattr(uuid, name, None)


def _tempfile(tempfile: ModuleType) -> None:
    tempfile._name_sequence = None  # type: ignore[attr-defined]


def _multiprocessing(process: ModuleType) -> None:
    process.current_process().authkey = os.urandom(32)
    # The parent removes it when it ends.
    process.current_process()._config.pop("tempdir", None)
    # They are children of another process; at exit this one would kill whoever has their numbers.
    process._children.clear()


def _semaphores(synchronize: ModuleType) -> None:
    # It looks for another process id alone, and a child of all threads has its parent's.
    names = sys.modules["tempfile"]._RandomNameSequence()
    synchronize.SemLock._rand = names


def _cryptography(module: ModuleType) -> None:
    # An OpenSSL of its own, which looks for another process id alone. It takes new state from the
    # kernel, and what it is given beside.
    module._openssl.lib.RAND_add(os.urandom(_SEED_BYTES), _SEED_BYTES, 0.0)


def _multiprocessing_util(util: ModuleType) -> None:
    # They are about files and processes of the parent; this process may have the number that they ask for.
    util._finalizer_registry.clear()


def _resource_tracker(module: ModuleType) -> None:
    tracker = module._resource_tracker
    tracker._fd = tracker._pid = None


def _forkserver(module: ModuleType) -> None:
    server = module._forkserver
    server._forkserver_fd = server._forkserver_address = None
    server._forkserver_alive_fd = server._forkserver_pid = None


def _signal(signal: ModuleType) -> None:
    signal.set_wakeup_fd(-1)  # it is not open here


def _asyncio(events: ModuleType) -> None:
    events._set_running_loop(None)


def _threading(module: ModuleType) -> None:
    thread = module.current_thread()
    if hasattr(thread, "_set_native_id"):  # Python 3.11 keeps the seed's
        thread._set_native_id()


_RENEWALS: tuple[tuple[str, Callable[[ModuleType], None]], ...] = (
    ("threading", _threading),
    ("signal", _signal),
    ("asyncio.events", _asyncio),
    ("numpy.random.mtrand", _numpy),
    ("torch.random", _torch),
    ("uuid", _uuid),
    ("tempfile", _tempfile),
    ("multiprocessing.process", _multiprocessing),
    ("multiprocessing.synchronize", _semaphores),
    ("multiprocessing.util", _multiprocessing_util),
    ("cryptography.hazmat.bindings._rust", _cryptography),
    ("multiprocessing.resource_tracker", _resource_tracker),
    ("multiprocessing.forkserver", _forkserver),
)


# What goes on in a child of all threads, where open files are carried.
_KEPT_WITH_ALL_THREADS = ("signal", "asyncio.events")


def renew(all_threads: bool) -> None:
    """Renew what this child must not have in common with another one."""
    for name, renewal in _RENEWALS:
        module = sys.modules.get(name)
        if module is not None and not (all_threads and name in _KEPT_WITH_ALL_THREADS):
            renewal(module)


def _after_in_child() -> None:
    if not _native.is_of_prepare():
        return
    try:
        renew(all_threads=False)
    except BaseException as error:
        end_half_child(error)


os.register_at_fork(after_in_child=_after_in_child)
