from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from clip_xai.data.synthetic.pool import rendering_pool


def threads(_):
    import numpy
    from threadpoolctl import threadpool_info

    return [library["num_threads"] for library in threadpool_info()]


if __name__ == "__main__":
    with rendering_pool(1) as pool:
        print(list(pool.map(threads, [0])))
"""


def test_a_worker_keeps_to_one_thread_whatever_its_program_has_loaded(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[[1]]"
