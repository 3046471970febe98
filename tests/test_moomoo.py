"""The SDK under its other name: moomoo-api is futu-api but for names, folders and comments.

Not installed here; a copy of futu-api is renamed as the vendor does it. `docs/faq.md` says what was
tried with the real one.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Final

from poller.simulator import TENCENT, World
from tests.service import Service, entries, simulator, store_of

_HIDDEN: Final = 'raise ModuleNotFoundError("No module named \'futu\'", name="futu")\n'


def renamed(folder: Path) -> None:
    """Put a package `moomoo` there, and hide `futu`."""
    spec = importlib.util.find_spec("futu")
    assert spec is not None
    assert spec.origin is not None
    skipped = shutil.ignore_patterns("__pycache__", "*.proto", "examples")
    package = shutil.copytree(Path(spec.origin).parent, folder / "moomoo", ignore=skipped)
    for file in package.rglob("*.py"):
        text = file.read_bytes()
        renaming = text.replace(b"from futu", b"from moomoo").replace(b'("futu")', b'("moomoo")')
        if renaming != text:
            file.write_bytes(renaming)
    (folder / "futu.py").write_text(_HIDDEN)


async def test_moomoo_in_place_of_futu(tmp_path: Path) -> None:
    """Where only moomoo-api is installed the service polls, publishes and ends as with futu-api."""
    packages, home = tmp_path / "packages", tmp_path / "home"
    packages.mkdir()
    renamed(packages)
    async with simulator(World(history=5)) as opend:
        service = Service(home, opend.port, TENCENT)
        service.settings = {"PYTHONPATH": os.pathsep.join([str(packages), str(Path.cwd())])}
        async with store_of(service) as store:
            await service.start()
            await entries(store, 1)
            assert await service.stop() == 0
        assert not [line for line in service.log() if line["level"] not in {"info", "debug"}]
        assert (home / "sdk" / "futu.log").exists()
