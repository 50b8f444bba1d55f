"""The process's environment variables and folders outside the project. No other module reads `os.environ`."""

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.configuration.section import Secret
from pipeline.errors import ConfigError


def crash_point_from_environment() -> str | None:
    """The value of SPRINGTIDE_CRASH_AT, which tests set to kill a process at a crash point."""
    return os.environ.get("SPRINGTIDE_CRASH_AT")


def set_environment(values: Mapping[str, str]) -> None:
    """Set variables in this process; call before starting Beam's worker, which reads its settings from them."""
    os.environ.update(values)


def child_environment(**added: str) -> dict[str, str]:
    """The environment for a child process: that of this process, and the variables added."""
    return {**os.environ, **added}


def cache_folder() -> Path:
    """Folder of downloaded files that all projects share: $XDG_CACHE_HOME/springtide, else ~/.cache/springtide."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "springtide"


def quiet_tensorflow() -> None:
    """Disable TensorFlow's start-up log on stderr, unless the environment sets its level; call before importing it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def read_secret(secret: Secret, root: Path) -> str:
    """The value of a secret, without trailing line breaks. Raises ConfigError if it is missing, unreadable or empty."""
    place = f"${secret.env}" if secret.env else str(root / str(secret.file))
    try:
        value = os.environ.get(secret.env, "") if secret.env else Path(place).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise ConfigError(f"secret {place} cannot be read: {failure}") from None
    if not (value := value.rstrip("\r\n")):
        raise ConfigError(f"secret {place} is empty or not set. hint: see logs.security")
    return value
