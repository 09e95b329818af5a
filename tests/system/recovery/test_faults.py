"""The quick faults of the crash suite; `make test-faults` injects all of them."""

from pathlib import Path

import pytest

from tests.fixtures.faults.injection import FAULTS, Fault, Target
from tests.fixtures.faults.recovery import inject, verify
from tests.fixtures.faults.steady_uploads import Uploads
from tests.fixtures.running_system import System


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.is_quick], ids=lambda fault: fault.name)
def test_nothing_is_lost_or_doubled(system: System, bundle: Path, fault: Fault) -> None:
    target = Target.of(system)
    uploads = Uploads.of_a_new_recipe(system.url, bundle, seed=1)
    with uploads.running(10):
        target.oracle.wait_until_final(uploads.wait_for(10), 30)
        inject(fault, target, uploads)
    verify(target, uploads)
