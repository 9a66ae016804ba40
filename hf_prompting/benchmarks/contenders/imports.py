"""What importing costs, each time in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any


def fresh(settings: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Start Python and import ``settings["modules"]``."""
    command = [sys.executable, "-c", f"import {', '.join(settings['modules'])}"]

    def one_round() -> dict[str, Any]:
        subprocess.run(command, check=True)
        return {}

    return one_round
