"""The base class of every part of a manifest, and its number types."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(ge=0, le=1)]
Score = float


class ManifestPart(BaseModel):
    """A part of a manifest: immutable, without unknown fields, and every number finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
