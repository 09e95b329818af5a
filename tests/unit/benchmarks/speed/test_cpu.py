import subprocess
import sys

from benchmarks.speed.cpu import Usage, cpu_between, usage

_BURN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
_PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {_BURN!r}])
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", "worker.scoring"])
print("ready", flush=True)
child.wait()
"""


def test_the_time_of_ended_children_counts_and_living_children_have_names_of_their_own() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        groups = usage({parent.pid: "peer"})
        parent.communicate()
    assert groups.keys() == {"peer", "scoring worker"}
    assert groups["peer"].cpu_seconds >= 0.3
    assert groups["peer"].memory_bytes > 0


def test_differences_include_groups_that_appeared_in_between() -> None:
    before = {"api": Usage(1.0, 10), "gone": Usage(5.0, 10)}
    after = {"api": Usage(1.5, 20), "io worker": Usage(0.25, 5)}
    assert cpu_between(before, after) == {"api": 0.5, "io worker": 0.25}
