"""Remote fork: this warmed-up process goes on elsewhere, in milliseconds.

    import mitosis

    model = load_model()                            # seconds, gigabytes
    if (child := mitosis.fork("host-b")) is None:   # returns twice, as os.fork does
        serve(model)                                # here: on host-b, model is simply there
    child.wait()

`fork` makes one child. `prepare` freezes a copy of this process, the seed; `resume` makes any
number of children of it, on any host. In a child, `random`, numpy's own generator and OpenSSL have
new state before any handler or hook runs; generators that you made yourself (by
numpy.random.default_rng, say) are copies: give them new state in an `after_resume` hook.

Import it early: C libraries that register fork handlers before it have these run in the seed, once,
in place of in each child.
"""

from . import _clash
from ._agent import ChildLine, Listing, SeedLine, stats
from ._agent import list as list
from ._child import Child, StartReport
from ._errors import (
    ArgumentError,
    ChildGone,
    Error,
    HookTimeout,
    HostLost,
    HostUnfit,
    KeyRefused,
    LimitError,
    MissingError,
    NotForkable,
    PageLost,
    ProtocolError,
    SecretError,
    SeedGone,
    Unreachable,
)
from ._fork import Lost, Resumed, Seed, fork, fork_async, prepare
from ._hooks import after_prepare, after_resume, before_prepare, rehearse
from ._native import SHARED_COPY_LIMIT_BYTES, Handle, __version__, generation
from ._resume import resume, resume_async
from ._stdio import DEVNULL, PIPE, STDOUT

_clash.warn()

# `list` is not among them: a star import must not hide the built-in.
__all__ = [
    "DEVNULL",
    "PIPE",
    "SHARED_COPY_LIMIT_BYTES",
    "STDOUT",
    "ArgumentError",
    "Child",
    "ChildGone",
    "ChildLine",
    "Error",
    "Handle",
    "HookTimeout",
    "HostLost",
    "HostUnfit",
    "KeyRefused",
    "LimitError",
    "Listing",
    "Lost",
    "MissingError",
    "NotForkable",
    "PageLost",
    "ProtocolError",
    "Resumed",
    "SecretError",
    "Seed",
    "SeedGone",
    "SeedLine",
    "StartReport",
    "Unreachable",
    "__version__",
    "after_prepare",
    "after_resume",
    "before_prepare",
    "fork",
    "fork_async",
    "generation",
    "prepare",
    "rehearse",
    "resume",
    "resume_async",
    "stats",
]
