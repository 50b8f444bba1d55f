"""Recall requests: {"instances": [{column: value, …}, …], "k": 100} → {"recalled": [{"items": …, "scores": …}, …]}.

They may have "filter": {"all": [attribute, …], "any": […], "none": […]} and "exclude": [item, …].
"""

from itertools import chain
from typing import Any

from pydantic_core import from_json

from pipeline.configuration.config import Config
from pipeline.errors import InputError
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.link.response import Refusal, Response, json_response
from pipeline.serving.rest.instances_body import parse_instances

_DEFAULT_K = 100
_KEYS = ("instances", "k", "filter", "exclude")
_MOST_INSTANCES = 64
"""A search of a million items for so many users takes tens of milliseconds."""


def recall_response(body: bytes, items: ItemView | None, config: Config) -> Response:
    """The items for each instance of a body.

    Raises:
        Refusal: recall is not configured, items are not embedded yet, or the body exceeds a bound.
        InputError: the body or an instance is wrong.
        ModelError: a user's function failed.
    """
    if part := config.serving.part:
        raise Refusal(404, f"part {part} of model {config.name} recalls no items. hint: serve the whole model")
    if items is None or config.recall is None:
        raise Refusal(404, f"model {config.name} recalls no items. hint: declare [recall]")
    if not items.ready:
        problem = "are not embedded yet" if items.problem is None else f"cannot be read: {items.problem}"
        raise Refusal(503, f"the items of model {config.name} {problem}", ("retry-after", "1"))
    instances = list(chain.from_iterable(parse_instances(body, config.serving, lambda: None)))
    if len(instances) > _MOST_INSTANCES:
        raise Refusal(413, f"request has {len(instances)} instances, at most {_MOST_INSTANCES} are accepted in recall")
    request = _request_of(body)
    allowed = items.attributes.allowed(request.get("filter"), request.get("exclude"))
    recalled = items.recall(instances, _k_of(request, config.recall.max_k), allowed)
    pairs = zip(recalled.items, recalled.scores, strict=True)
    rows = [{"items": names, "scores": scores} for names, scores in pairs]
    return json_response(200, {"recalled": rows, "version": recalled.version})


def _request_of(body: bytes) -> dict[str, Any]:
    """The request of a body whose instances were read. A misspelt filter would let items through that it excludes."""
    request: dict[str, Any] = from_json(body.removeprefix(b"\xef\xbb\xbf"))
    if unknown := [key for key in request if key not in _KEYS]:
        raise InputError(f"the request has {', '.join(map(repr, unknown))}. known: {', '.join(_KEYS)}")
    return request


def _k_of(request: dict[str, Any], max_k: int) -> int:
    k = request.get("k", _DEFAULT_K)
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= max_k:
        raise InputError(f"k: got {k!r}, wanted an integer in 1..{max_k}. hint: recall.max_k")
    return k
