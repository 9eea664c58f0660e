package main

import (
	"encoding/json"
	"log"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// report is what VMware Tools in a guest say: who it is, each NIC's addresses by MAC. Number is
// the event that started the guest: what an earlier one says comes too late. Down: it shut down.
type report struct {
	VM     string
	Number int
	Host   string
	Nics   map[string][]string
	Down   bool
}

// started is the last event that started each VM's guest; the lock is events'.
var started = map[string]int{}

func heard(text string) {
	var r report
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		log.Printf("no report: %q", text)
		return
	}
	vm, ok := simulator.Map.Get(types.ManagedObjectReference{Type: "VirtualMachine", Value: r.VM}).(*simulator.VirtualMachine)
	if !ok {
		return
	}
	simulator.Map.WithLock(vm, func() {
		events.Lock()
		late := started[r.VM] != r.Number
		events.Unlock()
		switch {
		case late || vm.Runtime.PowerState != on:
		case r.Down:
			machine{vm}.forget()
			simulator.Map.Update(vm, []types.PropertyChange{
				{Name: "runtime.powerState", Val: off},
				{Name: "summary.runtime.powerState", Val: off},
			})
		default:
			machine{vm}.running(r)
		}
	})
}

func (m machine) running(r report) {
	first, nics := "", append([]types.GuestNicInfo(nil), m.Guest.Net...)
	for i := range nics {
		nics[i].IpAddress = r.Nics[nics[i].MacAddress]
		if first == "" && len(nics[i].IpAddress) > 0 {
			first = nics[i].IpAddress[0]
		}
	}
	m.tell(string(types.VirtualMachineToolsRunningStatusGuestToolsRunning), r.Host, first, nics)
}

// forget drops what VMware Tools last said.
func (m machine) forget() {
	nics := append([]types.GuestNicInfo(nil), m.Guest.Net...)
	for i := range nics {
		nics[i].IpAddress = nil
	}
	m.tell(string(types.VirtualMachineToolsRunningStatusGuestToolsNotRunning), "", "", nics)
}

func (m machine) tell(status, host, address string, nics []types.GuestNicInfo) {
	simulator.Map.Update(m.VirtualMachine, []types.PropertyChange{
		{Name: "guest.toolsRunningStatus", Val: status},
		{Name: "guest.hostName", Val: host},
		{Name: "guest.net", Val: nics},
		{Name: "guest.ipAddress", Val: address},
		{Name: "summary.guest.toolsRunningStatus", Val: status},
		{Name: "summary.guest.hostName", Val: host},
		{Name: "summary.guest.ipAddress", Val: address},
	})
}
