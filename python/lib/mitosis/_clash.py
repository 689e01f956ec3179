"""Another distribution of PyPI installs a package named mitosis, too."""

from __future__ import annotations

import os
import warnings

_OTHER = "mitosis-"
_KINDS = (".dist-info", ".egg-info")


def warn() -> None:
    """Warn if files of the other one lie among ours: whichever was installed last has overwritten some.

    By the names beside this package alone: metadata of all that is installed takes longer to read than all else here.
    """
    beside = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        names = os.listdir(beside)
    except OSError:  # in a zip file, say
        return
    for name in names:
        if name.startswith(_OTHER) and name.endswith(_KINDS):
            warnings.warn(
                f"another distribution with a package 'mitosis' is installed in {beside} ({name}), and files of both are "
                "mixed: pip uninstall mitosis mitosis-fork, then pip install mitosis-fork alone",
                RuntimeWarning,
                stacklevel=3,
            )
            return
