"""An OpenD that speaks the real wire protocol over a made-up world.

The world (`World`, `Window`) is pure and serves virtual time as well; `Simulator` puts it on a
loopback port, where the official SDK connects to it as to OpenD.
"""

from poller.simulator.series import TENCENT
from poller.simulator.server import Simulator
from poller.simulator.window import Window
from poller.simulator.wire import Proto
from poller.simulator.world import (
    END,
    TENCENT_ROWS,
    Answer,
    Refusal,
    Revision,
    Rows,
    ShortInterest,
    Split,
    World,
)

__all__ = [
    "END",
    "TENCENT",
    "TENCENT_ROWS",
    "Answer",
    "Proto",
    "Refusal",
    "Revision",
    "Rows",
    "ShortInterest",
    "Simulator",
    "Split",
    "Window",
    "World",
]
