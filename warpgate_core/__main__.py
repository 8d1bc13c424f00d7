"""``python -m warpgate_core``: the same as ``warpgate``, where scripts of packages are not on the path."""

from __future__ import annotations

import sys

from warpgate_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
