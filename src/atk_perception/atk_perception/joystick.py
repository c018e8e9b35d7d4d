"""Which button of a joystick starts and ends episodes: presses are turned into requests once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
NO_BUTTON = -1


class Buttons(Generic[T]):
    """Tells which buttons have just gone down.

    A button that is already down in the first message is no press.

    Args:
        meaning: button index -> what it asks for; NO_BUTTON is left out.

    Raises:
        ValueError: one button has two meanings.
    """

    def __init__(self, meaning: Sequence[tuple[int, T]]) -> None:
        used = [button for button, _ in meaning if button != NO_BUTTON]
        repeated = sorted({button for button in used if used.count(button) > 1})
        if repeated:
            raise ValueError(f"joystick buttons {repeated} are given two meanings; give each its own button")
        self._meaning: Mapping[int, T] = {button: what for button, what in meaning if button != NO_BUTTON}
        self._down: frozenset[int] | None = None

    def __bool__(self) -> bool:
        return bool(self._meaning)

    def pressed(self, buttons: Sequence[int]) -> list[T]:
        """What the buttons that have gone down since the last message ask for; `buttons` as in sensor_msgs/Joy."""
        before = self._down
        self._down = frozenset(number for number, value in enumerate(buttons) if value)
        if before is None:
            return []
        return [self._meaning[number] for number in sorted(self._down - before) if number in self._meaning]

    def missing(self, buttons: Sequence[int]) -> list[int]:
        """The buttons with a meaning that this joystick does not have."""
        return sorted(number for number in self._meaning if number >= len(buttons))
