"""What is asked of the other services leaves nothing behind."""

import gc
import weakref

import httpx
import pytest

from ingest.neighbours import GraphWriterClient, NeighbourRefused


@pytest.mark.parametrize("status", [200, 400])
async def test_a_question_is_gone_when_it_is_answered(status: int) -> None:
    """And not only when the collector of cycles comes: `verify` asks about each chunk of an import."""
    questions: list[weakref.ref[httpx.Request]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        questions.append(weakref.ref(request))
        return httpx.Response(status, json={})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        writer = GraphWriterClient(client, "http://graph-writer")
        gc.disable()
        try:
            if status == 200:
                assert await writer.verify({"documents": []}) == {}
            else:
                with pytest.raises(NeighbourRefused):
                    await writer.verify({"documents": []})
            assert [one() for one in questions] == [None]
        finally:
            gc.enable()
