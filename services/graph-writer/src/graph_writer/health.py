"""Why this process is not ready, as short words that `/readyz` shows. Alive it is as long as it answers."""


class Health:
    """`starting`, `standby`, `catching_up`, `log_down`, `store_down`, `dead_letters`."""

    def __init__(self) -> None:
        self._reasons: set[str] = {"starting"}

    def add(self, reason: str) -> None:
        self._reasons.add(reason)

    def remove(self, reason: str) -> None:
        self._reasons.discard(reason)

    @property
    def reasons(self) -> list[str]:
        return sorted(self._reasons)

    @property
    def is_ready(self) -> bool:
        return not self._reasons

    @property
    def can_read(self) -> bool:
        """Reads need the store, whole; what only stops the writing does not stop them."""
        return not self._reasons & {"starting", "standby", "catching_up", "store_down"}
