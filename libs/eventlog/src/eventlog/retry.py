"""How often and how long to wait, as plain numbers. The one place that retries asks here; it sleeps itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off; `Retry-After` wins over the formula, up to `retry_after_s_max`."""

    attempts_max: int = 5
    backoff_s_first: float = 0.5
    backoff_s_max: float = 30.0
    retry_after_s_max: float = 600.0

    def backoff_s(self, attempt: int, *, retry_after_s: float | None = None, jitter: float = 0.5) -> float:
        """Seconds before try `attempt + 1` (`attempt` counts from 1); `jitter` in [0, 1] is drawn by the caller."""
        if retry_after_s is not None:
            return min(max(retry_after_s, 0.0), self.retry_after_s_max)
        doublings = min(max(attempt, 1) - 1, 64)  # beyond, a float overflows
        full = min(self.backoff_s_max, self.backoff_s_first * 2.0**doublings)
        return full * (0.75 + 0.5 * jitter)
