"""The installed version of springtide."""

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The version of the distribution; `unknown` in a source tree that is not installed."""
    try:
        return version("springtide")
    except PackageNotFoundError:
        return "unknown"
