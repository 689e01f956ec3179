"""Why a fork failed. Every exception is an `Error`; its text names the cause and what to do."""

__all__ = [
    "ArgumentError",
    "ChildGone",
    "Error",
    "HookTimeout",
    "HostLost",
    "HostUnfit",
    "KeyRefused",
    "LimitError",
    "MissingError",
    "NotForkable",
    "PageLost",
    "ProtocolError",
    "SecretError",
    "SeedGone",
    "Unreachable",
]


class Error(Exception):
    """Something that Mitosis was asked for has failed; raised itself where no kind below fits."""


class SeedGone(Error):
    """No such seed: it was dropped, it has ended, or it was never there."""


class KeyRefused(Error):
    """The handle's key is not that of the seed."""


class NotForkable(Error):
    """This process cannot be a seed as it stands; the text names what is in the way."""


class HookTimeout(Error):
    """A hook of `before_prepare` or `after_prepare` did not return in its time; there is no seed."""


class HostUnfit(Error):
    """The other host cannot run the seed: another processor, page size, kernel or file."""


class Unreachable(Error):
    """The other host, or the agent of this one, does not answer."""


class SecretError(Error):
    """The cluster secret is missing on one host, or differs."""


class ProtocolError(Error):
    """Two sides do not understand each other: they are of different versions."""


class ArgumentError(Error, ValueError):
    """An argument cannot be right."""


class LimitError(Error):
    """A limit is reached: of the agent, of this library or of the operating system."""


class MissingError(Error):
    """No agent runs here, or the host lacks FUSE, a capability or a kernel feature."""


class ChildGone(Error):
    """There is no such child any more."""


class PageLost(Error):
    """A child died of SIGBUS: a page could not be had. The text names seed, host and address."""


class HostLost(Error):
    """The agent that watched over a child is gone; nothing is known of the child."""


for _name in __all__:
    globals()[_name].__module__ = "mitosis"  # where users import it from, and tracebacks name it
