"""The filters of the api, of the client and of the command line are the same."""

from api.routes.inspections import ListingFilters
from core.inspection.inspections import Filters
from linewatch.cli.commands.inspections import list_inspections
from linewatch.operations import inspections


def test_the_client_and_the_command_line_have_every_filter_of_the_api() -> None:
    names = set(ListingFilters.model_fields)
    assert set(inspections.Filters.__annotations__) == names
    options = {parameter.name for parameter in list_inspections.params}
    assert options - {"limit", "url", "api_key", "as_json"} == names
    assert set(Filters.__dataclass_fields__) == names
