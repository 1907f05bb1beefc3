"""The OpenVINO runtime, as the rest of the engine imports it. The one module that does something when imported."""

from __future__ import annotations

import sys

# Nothing is sent: with this name blocked the package takes its own stub in place of its telemetry (and loads faster).
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402
from openvino import opset13 as ops  # noqa: E402
from openvino._pyopenvino.op import _PagedAttentionExtension as PagedAttention  # noqa: E402

__all__ = ["PagedAttention", "ops", "ov"]
