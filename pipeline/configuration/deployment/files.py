"""The configuration of files: where versions and published files are kept."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.configuration.section import Seconds, Section
from pipeline.files.object_store import SCHEMES, is_url

_SECRET = ("key", "secret", "token", "password", "credential")
"""Words in the names of options that belong in the environment."""


class FilesConfig(Section):
    """`[files]`: where files of versions, published files and halted batches are kept."""

    url: str | None = None
    """`s3://bucket/prefix`, `gs://…`, `abfs://…` or `az://…`, for all nodes; default: the state folder. Credentials
    come from the environment (`AWS_ACCESS_KEY_ID` and so on) or the role of the machine."""
    options: dict[str, str] = Field(default_factory=dict)
    """Options of the store, as obstore names them, such as `{ endpoint = "http://127.0.0.1:9000", region = "local" }`.
    Credentials are refused here."""
    deadline_s: Seconds = 180.0
    """How long a request to the store is repeated before it fails."""
    copies: str | None = None
    """Folder for local copies of files of the store; default: `copies` in the state folder."""
    copies_bytes: Annotated[int, Field(ge=1 << 20)] = 10 << 30
    """How many bytes of them are kept. The files of the version that is trained should fit."""

    @model_validator(mode="after")
    def _check_store(self) -> Self:
        if self.url is not None and not is_url(self.url):
            raise ValueError(f"url: got {self.url!r}, wanted one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
        if self.url is None and self.options:
            raise ValueError("options: got some without a url. hint: set url, or remove them")
        for name in self.options:
            if any(word in name.lower() for word in _SECRET):
                raise ValueError(f"options.{name}: credentials belong in the environment, not in the configuration")
        return self
