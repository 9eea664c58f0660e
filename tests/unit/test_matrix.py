"""What every driver says it can do, side by side; the page of the docs is that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from provision import matrix, registry
from provision.capabilities import MODEL, SWITCH, Answer, Can, Capabilities
from provision.driver import NicModel
from provision.errors import PreflightError

ROOT = Path(__file__).parents[2]
CAN = Capabilities(
    nic_models={"virtio": NicModel("virtio", (), ()), "e1000": NicModel("e1000", (), ())},
    words={"paravirtual": "virtio"},
    switches=("bridge", "ovs"),
    refused={"dom0.weight": "it has no weight", f"{MODEL}=sriov": "no IOMMU there"},
    reboots={"dom0.vcpus": "boot options", f"{SWITCH}=ovs": "another backend"},
    depends={f"{MODEL}=e1000": "a newer one"},
    management="",
    most_nics=7,
)


@pytest.mark.parametrize(
    ("path", "value", "can"),
    [
        ("guests.cpu.pin", "", Can(Answer.YES)),
        ("dom0.weight", "", Can(Answer.NO, "it has no weight")),
        ("dom0.vcpus", "", Can(Answer.REBOOT, "boot options")),
        (SWITCH, "ovs", Can(Answer.REBOOT, "another backend")),
        (SWITCH, "vswitch", Can(Answer.NO, "its switches are: bridge, ovs")),
        (MODEL, "e1000", Can(Answer.YES, "a newer one")),
        (MODEL, "paravirtual", Can(Answer.YES)),
        (MODEL, "sriov", Can(Answer.NO, "no IOMMU there")),
        (MODEL, "vmxnet3", Can(Answer.NO, "its vNIC models are e1000, virtio")),
    ],
)
def test_an_answer_has_its_reason(path: str, value: str, can: Can) -> None:
    assert CAN.can(path, value) == can


def test_the_page_is_what_the_drivers_say() -> None:
    page = ROOT / "docs" / "matrix.md"
    assert page.read_text() == matrix.page(matrix.matrix()), (
        "provision doctor --matrix --markdown > docs/matrix.md"
    )


def test_every_driver_has_a_column_and_an_answer_to_everything() -> None:
    found = matrix.matrix()
    assert {*found.drivers, *found.lacks} >= set(registry.BUILTIN) - {"fake"}
    for row in found.rows:
        assert tuple(row.cells) == found.drivers
        assert all(can.words for can in row.cells.values() if can.answer is Answer.NO), row
    asked = {row.path for row in found.rows}
    assert {"dom0.irq_affinity", "guests.nic.rate_mbit", "checkpoint"} <= asked
    values = {row.value for row in found.rows}
    assert {"sriov", "passthrough", "ovs", "vmxnet3", "virtio"} <= values


def _table(lines: Sequence[str]) -> dict[str, list[str]]:
    return {words[0]: words[1:] for line in lines if (words := line.split("  ")) and words[0]}


def test_the_terminal_has_a_line_a_word_and_each_reason_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Acme:
        capabilities = CAN

    def find(name: str) -> object:
        if name == "gone":
            raise PreflightError("it needs the Python package 'acme'", hint="pip install acme")
        return Acme if name == "acme" else object

    monkeypatch.setattr(registry, "find", find)
    found = matrix.matrix(["acme", "gone", "mute"])
    lines = list(matrix.terminal(found))
    assert [line for line in lines if line.startswith("dom0.weight")] == [
        next(line for line in lines if line.startswith("dom0.weight"))
    ]
    assert sum("it has no weight" in line for line in lines) == 1
    assert "gone: no column: it needs the Python package 'acme'; pip install acme" in lines
    assert "mute: no column: the driver does not say what it can do" in lines
    data = matrix.plain(found)
    (weight,) = [row for row in data["rows"] if row["path"] == "dom0.weight"]
    assert weight["cells"] == {"acme": {"answer": "no", "words": "it has no weight"}}
    assert data["most_nics"] == {"acme": 7}
