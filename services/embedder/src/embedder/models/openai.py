"""OpenAI's embeddings, and every server that speaks their API. Retries are ours, so the SDK's are off.

The SDK makes the request; its answer is read here, since a server that is not OpenAI answers with anything, and the
SDK would believe it (HTML with status 200 comes back as a string). Its `post` is the way past its types: they cost a
quarter of the request's processor time.
"""

from collections.abc import Sequence
from typing import Any

import openai

from embedder.core import split_tokens
from embedder.models.model import (
    BadAnswer,
    Checker,
    Embedded,
    InputRefused,
    Misconfigured,
    RateLimited,
    Side,
    Unavailable,
    billed,
    parsed,
    plain,
    retry_after_s,
)
from eventlog.spaces import Space

_OWN_DIMS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
_NO_KEY = "none"
"""The SDK wants one; a server of one's own may not."""
_SHORTENS = tuple(_OWN_DIMS)
"""Models that take `dimensions`; another server's model might refuse the parameter."""


class OpenAIModel:
    def __init__(self, space: Space, *, api_key: str, base_url: str, timeout_s: float) -> None:
        self._space = space
        self._secret = api_key
        self._checked = Checker(space.dims)
        self._client = openai.AsyncOpenAI(
            api_key=api_key or _NO_KEY,
            base_url=base_url or None,
            max_retries=0,
            timeout=timeout_s,
            # Its usual transport looks at every idle connection for each request, which took a third of our time.
            http_client=openai.DefaultAioHttpClient(),
        )
        is_shortened = space.model in _SHORTENS and _OWN_DIMS[space.model] != space.dims
        self._more: dict[str, Any] = {"dimensions": space.dims} if is_shortened else {}

    async def embed(self, texts: Sequence[str], side: Side) -> Embedded:
        del side  # These models have one side.
        try:
            content: bytes = await self._client.post(
                "/embeddings",
                cast_to=bytes,
                body={
                    "model": self._space.model,
                    "input": list(texts),
                    "encoding_format": "base64",
                    **self._more,
                },
            )
        except openai.APIStatusError as error:
            raise _mapped(error, self._secret) from None
        except openai.APIConnectionError as error:  # a time-out is one of these
            why = f"{type(error).__name__}: {error.__cause__ or error}"
            raise Unavailable(plain(why, secret=self._secret)) from None
        except openai.OpenAIError as error:
            raise Unavailable(plain(f"{type(error).__name__}: {error}", secret=self._secret)) from None
        vectors, tokens = _read(content, len(texts))
        return Embedded(self._checked(vectors, len(texts)), split_tokens(tokens, texts))

    async def close(self) -> None:
        await self._client.close()


def _read(content: bytes, count: int) -> tuple[list[Any], int]:
    """The vectors in the order of the texts, and the tokens billed."""
    try:
        body = parsed(content)
        rows = body["data"]
        by_index = {row["index"]: row["embedding"] for row in rows}
        usage = body.get("usage") or {}
        tokens = usage.get("total_tokens") or usage.get("prompt_tokens")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unavailable(f"the answer is not an embeddings list ({type(error).__name__})") from None
    if len(rows) != count or set(by_index) != set(range(count)):
        raise BadAnswer(f"{len(rows)} vectors with {len(by_index)} indexes for {count} texts")
    return [by_index[index] for index in range(count)], billed(tokens)


def _mapped(error: openai.APIStatusError, secret: str) -> Exception:
    message = plain(f"{error.status_code}: {error.message}", secret=secret)
    match error.status_code:
        case 429:
            is_quota = error.code in ("insufficient_quota", "billing_hard_limit_reached")
            return RateLimited(
                message,
                retry_after_s=retry_after_s(error.response.headers.get("retry-after")),
                is_quota=is_quota,
            )
        case 401 | 403 | 404 | 405:
            return Misconfigured(message)
        case 400 | 413 | 422:
            return InputRefused(message)
        case _:
            return Unavailable(message)
