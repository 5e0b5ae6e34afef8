"""
What a worker loop does with a failure:

PipelineError
├── Backpressure          pause, keep the offset, come back after `retry_after_s`
├── TransientFailure      retry by policy; when spent, stop so that somebody looks
│   └── Fenced            another process decides now; drop everything and start as a follower
└── UnprocessableRecord   send to the dead letters with the reason, go on
    └── RecordGone        the record asked for by offset is not in the log any more

Anything else is a bug and stops the service.
"""


class PipelineError(Exception):
    """The root of what the pipeline expects to go wrong."""


class Backpressure(PipelineError):  # noqa: N818 - the name is the instruction
    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TransientFailure(PipelineError):  # noqa: N818 - the name is the instruction
    """May succeed later: time-outs, an absent broker, 5xx."""


class Fenced(TransientFailure):
    """A transactional writer with the same id was opened elsewhere."""


class UnprocessableRecord(PipelineError):  # noqa: N818 - the name is the instruction
    """Fails every time, however often it is tried; `reason` is a short code, safe to show."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(f"{reason}: {message}" if message else reason)
        self.reason = reason


class RecordGone(UnprocessableRecord):
    """Retention, or a wiped log: the offset does not hold this record."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        super().__init__("record_gone", f"{topic}[{partition}]@{offset}")
