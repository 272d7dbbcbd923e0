"""`bench` with the budget of `small_run`, as a process of its own: `python tests/small_bench.py run --anonymizer ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.cli import main
from bench.presets import PRESETS
from tests.small_run import tiny_preset

if __name__ == "__main__":
    PRESETS["quick"] = tiny_preset()
    main()
