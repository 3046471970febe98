"""An OpenD that speaks the real wire protocol over a made-up world.

`World` and `SlidingWindow` are pure and also serve virtual time; `Simulator` puts them on a
loopback port, where the official SDK connects as it does to OpenD.
"""

from poller.simulator.series import TENCENT
from poller.simulator.server import Simulator
from poller.simulator.window import SlidingWindow
from poller.simulator.wire import Proto
from poller.simulator.world import (
    END,
    TENCENT_ROWS,
    Refusal,
    Revision,
    Rows,
    ShortInterest,
    Split,
    World,
    WorldAnswer,
)

__all__ = [
    "END",
    "TENCENT",
    "TENCENT_ROWS",
    "Proto",
    "Refusal",
    "Revision",
    "Rows",
    "ShortInterest",
    "Simulator",
    "SlidingWindow",
    "Split",
    "World",
    "WorldAnswer",
]
