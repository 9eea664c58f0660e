"""A Hyper-V peer, and cmdlets on it; who needs another has a fixture of that name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hyperv.shell import Shell, connected
from tests.hyperv.wire import Programs, serving
from tests.peers.hyperv.peer import Peer, hyperv_host
from tests.peers.wsman.endpoint import Endpoint


@pytest.fixture
def peer() -> Iterator[Peer]:
    with hyperv_host(nics=3, cpu_groups=True) as found:
        yield found


@pytest.fixture
def shell(peer: Peer) -> Iterator[Shell]:
    with connected(peer) as found:
        yield found


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[Endpoint, Programs]]:
    with serving(tmp_path) as found:
        yield found
