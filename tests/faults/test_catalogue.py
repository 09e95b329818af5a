"""Every fault of the catalogue, in a system that works: nothing is lost or doubled, and it recovers by itself."""

import pytest

from tests.fixtures.faults.injection import FAULTS, Fault, Target
from tests.fixtures.faults.recovery import Recovery, inject, verify
from tests.fixtures.faults.steady_uploads import Uploads

PER_SECOND = 25.0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault(target: Target, uploads: Uploads, recoveries: list[Recovery], fault: Fault) -> None:
    with uploads.running(PER_SECOND):
        target.oracle.wait_until_final(uploads.wait_for(50), 30)
        recoveries.append(inject(fault, target, uploads))
    verify(target, uploads)
