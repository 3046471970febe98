"""A few thousand of the inputs that `make fuzz` sends, the same at every run."""

import math
from pathlib import Path

import pytest

from tests.fuzz import inputs_of, run, targets

INPUTS = {"configuration": 150, "environment": 150, "answer of OpenD": 300}
NAMES = [target.name for target in targets(Path())]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_the_named_errors_comes_out(name: str, tmp_path: Path) -> None:
    """Whatever a receiver, OpenD, a neighbour in Redis or a file holds."""
    (target,) = [target for target in targets(tmp_path) if target.name == name]
    failures: list[tuple[bytes, str]] = []
    most = INPUTS.get(name, 2000)
    inputs = inputs_of(target, 1, most=most, seconds=math.inf)
    assert run(target, inputs, lambda *failure: failures.append(failure)) == most
    assert failures == []
