"""Time by the name of a step: of a thread on its core, or of a device."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class ThreadStopwatch:
    """Seconds of this thread on its core, by the name of a step: what other programs take does not count."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = 0.0

    def mark(self, step: str | None = None) -> None:
        """The time since the last mark was `step`'s; without a name it counts for nothing."""
        now = time.thread_time()
        if step:
            self.seconds[step] = self.seconds.get(step, 0.0) + now - self._started
        self._started = now


class DeviceStopwatch:
    """Seconds on a device by phase, from mark to mark; nothing waits for the device before `stop`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._phases: list[str] = []
        self._times: list[Any] = []
        self._now()
        self._started = time.perf_counter()

    def mark(self, phase: str) -> None:
        """The time since the last mark was `phase`'s."""
        self._phases.append(phase)
        self._now()

    def stop(self) -> dict[str, float]:
        """Seconds of each phase, and of the whole as `step`, up to when the device is done."""
        if self._device.type != "cpu":
            import torch

            torch.accelerator.synchronize(self._device)
        seconds = {"step": time.perf_counter() - self._started}
        for phase, before, after in zip(self._phases, self._times, self._times[1:], strict=False):
            spent = after - before if self._device.type == "cpu" else before.elapsed_time(after) / 1000
            seconds[phase] = seconds.get(phase, 0.0) + spent
        return seconds

    def _now(self) -> None:
        if self._device.type == "cpu":
            self._times.append(time.perf_counter())
        else:
            import torch

            event = torch.Event(self._device, enable_timing=True)
            event.record()
            self._times.append(event)
