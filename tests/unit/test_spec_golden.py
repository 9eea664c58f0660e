"""Specs in ``specs/``: NAME.yml beside NAME.err, every fault in its place, or NAME.json.

The JSON has what differs from the defaults; HERE is the folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provision import registry
from provision.errors import SpecError
from provision.spec import Spec
from provision.spec import file as specfile

HERE = Path(__file__).parent / "specs"
WRONG = sorted(p.stem for p in HERE.glob("*.err"))
RIGHT = sorted(p.stem for p in HERE.glob("*.json"))


@pytest.fixture
def _drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "known", lambda: ["kvm", "native", "vsphere", "xen"])


@pytest.mark.usefixtures("_drivers")
@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        specfile.load(HERE / f"{name}.yml")
    told = "".join(f"{p.replace(f'{HERE}/', '')}\n" for p in caught.value.problems)
    assert told == (HERE / f"{name}.err").read_text()
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.usefixtures("_drivers")
@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    spec = specfile.load(HERE / f"{name}.yml")
    meant = json.dumps(spec.model_dump(mode="json", exclude_defaults=True), indent=1)
    assert meant.replace(str(HERE), "HERE") + "\n" == (HERE / f"{name}.json").read_text()


def test_every_case_is_two_files() -> None:
    assert {*WRONG, *RIGHT} == {p.stem for p in HERE.glob("*.yml")}
    assert not {*WRONG} & {*RIGHT}


EXAMPLES = [
    p
    for p in sorted((Path(__file__).parents[2] / "examples").rglob("*.yml"))
    if "own-workload" not in p.parts  # its description is no spec
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example(path: Path) -> None:
    spec = specfile.load(path)
    assert spec != Spec()


def test_examples_are_there() -> None:
    assert {"lab.yml", "linux-host.yml", "ovs.yml", "dom0.yml"} <= {p.name for p in EXAMPLES}
