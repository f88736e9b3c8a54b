"""What the first process decides reaches the others, and so does that it could not."""

import subprocess
import sys

import pytest

pytest.importorskip("torch")

# An answer, an error, an answer: what each process got, within the time that a broadcast waits.
PROCESS = """
import sys, datetime
import torch.distributed as dist
from gradience.errors import GradienceError
from gradience.integrations.hf_ranks import Ranks

class Odd(Exception):
    def __init__(self, *, left):  # which no pickle brings back
        super().__init__(f"{left} bytes left")

rank, meeting = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=30))
ranks = Ranks(2, first=rank == 0)

def fail():
    raise Odd(left=7)

print(ranks.agreed(lambda: f"asked in {rank}"))
try:
    ranks.agreed(fail)
except (Odd, GradienceError) as error:
    print(f"{type(error).__name__}: {error}")
print(ranks.agreed(lambda: "went on"))
dist.destroy_process_group()
"""


def test_an_error_of_the_process_that_decides_is_raised_in_all_at_once(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert [out.splitlines() for out, _ in said] == [
        ["asked in 0", "Odd: 7 bytes left", "went on"],
        [
            "asked in 0",
            "StorageError: the first process, which decides for all, could not: Odd: 7 bytes left",
            "went on",
        ],
    ]
