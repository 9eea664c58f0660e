"""For all tests: which need the machine to themselves, and that a busy machine is no defect."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("provision", deadline=None)  # hypothesis counts no time
settings.load_profile("provision")

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those that use this machine's own network or daemons, or measure on its CPUs."""
    for item in items:
        if item.get_closest_marker("live") or item.path.is_relative_to(HERE / "root"):
            item.add_marker(pytest.mark.host)
