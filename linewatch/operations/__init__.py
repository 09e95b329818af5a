"""The operations on a running system, written once as coroutines that use an executor (`linewatch.http.executors`).

`linewatch.AsyncClient` has these coroutines, `linewatch.Client` the same as blocking methods.
"""

from linewatch.operations.batches import Batches
from linewatch.operations.endpoints import Endpoints
from linewatch.operations.feed import Feed
from linewatch.operations.inspections import Inspections
from linewatch.operations.legal_holds import LegalHolds
from linewatch.operations.model_versions import ModelVersions
from linewatch.operations.monitoring import Monitoring
from linewatch.operations.parts import Parts
from linewatch.operations.recipes import Recipes
from linewatch.operations.related_inspections import RelatedInspections
from linewatch.operations.rescore_actions import RescoreActions
from linewatch.operations.rescore_runs import RescoreRuns
from linewatch.operations.rescore_schedules import RescoreSchedules
from linewatch.operations.reviews import Reviews
from linewatch.operations.training_runs import TrainingRuns


class Operations(
    Inspections,
    RelatedInspections,
    Reviews,
    Batches,
    Parts,
    LegalHolds,
    Recipes,
    ModelVersions,
    TrainingRuns,
    Feed,
    Endpoints,
    RescoreRuns,
    RescoreActions,
    RescoreSchedules,
    Monitoring,
):
    """All operations."""
