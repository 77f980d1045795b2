"""What the API says, as OpenAPI knows it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

View = Literal["tokens", "samples", "flops"]


class Said(BaseModel):
    """Base of all answers: their fields are final."""

    model_config = ConfigDict(frozen=True)


class Detection(Said):
    """One object."""

    box: tuple[float, float, float, float] = Field(description="x1, y1, x2, y2 in pixels of the image as displayed")
    score: float
    class_id: int = Field(description="id of the category in the data that the model was trained on")
    class_name: str


class TokenCount(Said):
    """Tokens that the encoder refined, of how many."""

    kept: int
    total: int


class Timing(Said):
    """Milliseconds of an image on its way."""

    decode: float = Field(description="from the bytes to the network's input")
    queue: float = Field(description="waiting for the model")
    stages: dict[str, float] = Field(description="the network, stage by stage; of the whole batch")
    batch: int = Field(description="images that passed the network together")


class LevelView(Said):
    """The tokens of one level. Maps are rows of height x width bytes, as base64."""

    stride: int = Field(description="pixels of the network's input from one token to the next")
    height: int
    width: int
    count: int = Field(description="tokens kept")
    kept: str = Field(description="1 where the encoder kept the token, else 0")
    scores: str | None = Field(None, description="how tokens scored, 0 to 255 from lowest to highest")
    lowest: float | None = None
    highest: float | None = None
    looked: str | None = Field(None, description="how much the decoder looked there; with show=samples")


class ImageResult(Said):
    """What was found on one image, and what that took."""

    name: str
    width: int
    height: int
    detections: list[Detection]
    rho: float = Field(description="share of the tokens that the encoder kept; 1 for a dense model")
    within_budget: bool | None = Field(None, description="whether the share was expected to fit into budget_ms")
    tokens: TokenCount | None = None
    timing_ms: Timing
    levels: list[LevelView] | None = Field(None, description="with show=tokens or show=samples")
    samples: list[list[list[tuple[int, int, int, int]]]] | None = Field(
        None, description="with show=samples: for each detection, layer by layer, the places that the "
                          "decoder read: x, y, weight in 255ths of the detection's heaviest, level")
    gflops: dict[str, float] | None = Field(None, description="with show=flops: multiply-adds by stage, in 10^9")


class Detected(Said):
    """Answers in the order of the images: uploads first, then addresses."""

    model: str
    threshold: float
    results: list[ImageResult]


class ClassName(Said):
    """A class that a model knows."""

    id: int
    name: str


class ModelInfo(Said):
    """A model that can be asked."""

    name: str
    classes: list[ClassName]
    sparse: bool = Field(description="whether it takes rho and budget_ms")
    rho: float = Field(description="its own share of the tokens; 1 for a dense one")
    size: int = Field(description="shorter side of its input in pixels")
    longest: int | None = Field(description="longer side of its input at most")
    parameters: int
    milliseconds: dict[str, float] = Field(description="one image at some shares of the tokens, as measured here")


class LimitsInfo(Said):
    """What a request may ask."""

    upload_bytes: int
    pixels: int
    images: int
    seconds: float
    urls: bool


class Models(Said):
    """Models, the first of which answers where none is named, and the limits of a request."""

    models: list[ModelInfo]
    limits: LimitsInfo


class ErrorBody(Said):
    """A word for programs and a sentence for people."""

    code: str
    message: str
    fields: dict[str, str] | None = Field(None, description="for arguments: which, and what is wrong with it")


class Error(Said):
    """The form of every error."""

    error: ErrorBody


class State(Said):
    """Whether the server lives, or can work."""

    status: Literal["ok", "not ready"]
