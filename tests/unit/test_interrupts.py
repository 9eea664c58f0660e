from __future__ import annotations

from drivers.linux.interrupts import by_cpu

# as Linux 6.1 prints it, in dom0 and on bare metal
DOM0 = """\
           CPU0       CPU1
  1:          8          0  xen-pirq    -ioapic-edge  i8042
 47:       1200         34  xen-pirq    -msi-x     virtio2-input.0
 65:      90000          0  xen-percpu    -virq      timer0
 66:        700          0  xen-percpu    -ipi       resched0
 80:          0        500  xen-dyn    -event     vif1.0-q0-tx
NMI:          0          0   Non-maskable interrupts
ERR:          3
"""
PLAIN = """\
            CPU0       CPU2
   9:          0          0   IO-APIC    9-fasteoi   acpi
 128:    1234567         89   PCI-MSI 327680-edge      eth1-rx-0
 LOC:   99999999   99999999   Local timer interrupts
"""


def test_devices_interrupts_are_counted_and_timers_are_not() -> None:
    assert by_cpu(DOM0) == (1208, 534)
    assert by_cpu(PLAIN) == (1234567, 89)


def test_nothing_told_is_nothing_known() -> None:
    assert by_cpu("") == ()
