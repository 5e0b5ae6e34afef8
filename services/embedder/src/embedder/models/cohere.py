"""Cohere's embeddings: the only model here with two sides. Retries are ours, so the SDK's are off, call by call."""

from collections.abc import Sequence
from typing import Any

import cohere
import httpx
from cohere.core.api_error import ApiError

from embedder.core import split_tokens
from embedder.models.model import (
    Checker,
    Embedded,
    InputRefused,
    Misconfigured,
    RateLimited,
    Side,
    Unavailable,
    billed,
    plain,
    retry_after_s,
)
from eventlog.spaces import Space

_INPUT_TYPE = {"document": "search_document", "query": "search_query"}


class _Client(httpx.AsyncClient):
    """httpx ties an answer and its stream to each other: texts and vectors would stay in memory until the collector looks
    at its oldest objects.
    """

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        answer = await super().send(request, **options)
        if answer.is_closed:  # and read
            answer.stream = httpx.ByteStream(b"")
        return answer


class CohereModel:
    def __init__(self, space: Space, *, api_key: str, base_url: str, timeout_s: float) -> None:
        self._space = space
        self._secret = api_key
        self._checked = Checker(space.dims)
        self._http = _Client(timeout=timeout_s)
        self._client = cohere.AsyncClientV2(
            api_key=api_key, base_url=base_url or None, timeout=timeout_s, httpx_client=self._http
        )

    async def embed(self, texts: Sequence[str], side: Side) -> Embedded:
        try:
            answer: Any = await self._client.embed(
                model=self._space.model,
                input_type=_INPUT_TYPE[side],
                texts=list(texts),
                embedding_types=["base64"],
                output_dimension=self._space.dims,
                truncate="NONE",
                request_options={"max_retries": 0},
            )
        except ApiError as error:
            raise _mapped(error, self._secret) from None
        except httpx.HTTPError as error:  # the SDK lets its transport's errors through
            raise Unavailable(plain(f"{type(error).__name__}: {error}", secret=self._secret)) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Unavailable(f"the answer is not an embeddings list ({type(error).__name__})") from None
        vectors = getattr(getattr(answer, "embeddings", None), "base64", None)
        if not isinstance(vectors, list):
            raise Unavailable("the answer has no base64 embeddings")
        units = getattr(getattr(answer, "meta", None), "billed_units", None)
        tokens = billed(getattr(units, "input_tokens", None))
        return Embedded(self._checked(vectors, len(texts)), split_tokens(tokens, texts))

    async def close(self) -> None:
        await self._http.aclose()


def _mapped(error: ApiError, secret: str) -> Exception:
    message = plain(f"{error.status_code}: {error.body}", secret=secret)
    headers = {key.lower(): value for key, value in (error.headers or {}).items()}
    match error.status_code:
        case 429:
            is_quota = any(word in message.lower() for word in ("trial", "billing", "quota"))
            return RateLimited(
                message, retry_after_s=retry_after_s(headers.get("retry-after")), is_quota=is_quota
            )
        case 401 | 402 | 403 | 404 | 405:
            return Misconfigured(message)
        case 400 | 413 | 422:
            return InputRefused(message)
        case _:  # also 200, with what the SDK could not read
            return Unavailable(message)
