"""What a review is told."""

import ipaddress
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gpt2kit.config import Settings

_SHORTEST_KEY = 16


class ReviewSettings(Settings):
    """Settings of `gpt2kit review`."""

    stage: ClassVar[str] = "review"

    inputs: tuple[Path, ...] = Field(
        (),
        description="Texts to judge: the .json report of `gpt2kit compare`, or two or more .jsonl files of `gpt2kit "
        "generate` from the same prompts. Default: the newest report in results/comparisons.",
    )
    database: Path = Field(
        Path("results/reviews/review.db"),
        description="SQLite file that judgements are kept in; a later run adds to it. Other texts need another file.",
    )
    results: bool = Field(False, description="Ask nothing: show what the judgements in the database say.")
    terminal: bool = Field(False, description="Ask in this terminal instead of serving a page; needs a rater.")
    rater: str = Field("", description="Name of the person who judges in the terminal. The page asks for it.")
    human: bool = Field(False, description="Let the human texts of the report take part.")
    same_length: bool = Field(
        True,
        description="Cut the longer text of a pair to the words of the shorter one, so that length neither gives a "
        "model away nor decides.",
    )
    num_pairs: int = Field(0, ge=0, description="Pairs that each person is asked, at most; 0 asks all.")
    host: str = Field(
        "127.0.0.1", description="Address to serve on. Any but this machine's own (127.0.0.1, ::1) needs a key."
    )
    port: int = Field(8765, ge=0, le=65535, description="Port to serve on; 0 takes a free one.")
    public_url: str | None = Field(
        None,
        description="Address under which a proxy shows the page, such as https://review.example.org: requests under "
        "that name and forms from that page are accepted too.",
    )
    key: str | None = Field(
        None,
        description="Password that the page asks for, 16 characters or more. Others see a flag in the list of "
        "processes: set GPT2KIT_REVIEW_KEY instead.",
    )
    seed: int = Field(0, description="Seed of everyone's order and of the sides.")

    @field_validator("public_url")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        found = urlsplit(value)
        if found.scheme not in ("http", "https") or not found.hostname or found.path.strip("/"):
            raise ValueError("should be like https://review.example.org, without a path")
        return value.rstrip("/").lower()

    @field_validator("key")
    @classmethod
    def _long_enough(cls, value: str | None) -> str | None:
        if value is not None and len(value) < _SHORTEST_KEY:
            raise ValueError(f"should have {_SHORTEST_KEY} characters or more")
        return value

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Self:
        if not self.is_local and self.key is None and not self.results and not self.terminal:
            raise ValueError(
                f"--host {self.host} is open to other machines: set a password of {_SHORTEST_KEY} characters or more "
                "in GPT2KIT_REVIEW_KEY"
            )
        return self

    @model_validator(mode="after")
    def _somebody_judges(self) -> Self:
        if self.terminal and not self.rater.strip():
            raise ValueError("--terminal needs --rater: whose judgements are they?")
        if self.terminal and self.results:
            raise ValueError("--terminal and --results exclude each other: give one")
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
