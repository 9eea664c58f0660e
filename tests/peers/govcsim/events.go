package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Events tell a reader all that it needs to act as the host would, so that it never has to ask.
// With -agent each event with a number waits for "NUMBER" (done) or "NUMBER why not" on standard input.
// "tools JSON" there is a report of VMware Tools, see tools.go.
var events = struct {
	sync.Mutex
	number  int
	waiting map[int]chan string
}{waiting: map[int]chan string{}}

type fields = map[string]interface{}

func say(what fields) {
	line, err := json.Marshal(what)
	if err != nil {
		log.Panic(err)
	}
	fmt.Fprintf(os.Stdout, "%s\n", line)
}

// answers reads them until there are no more; whoever waits then is let go.
func answers(in io.Reader) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if said := strings.TrimPrefix(lines.Text(), "tools "); said != lines.Text() {
			go heard(said) // it waits for the VM's lock, which an event may hold
			continue
		}
		var number int
		text, why, _ := strings.Cut(lines.Text(), " ")
		if _, err := fmt.Sscan(text, &number); err != nil {
			log.Printf("no answer: %q", lines.Text())
			continue
		}
		events.Lock()
		if c := events.waiting[number]; c != nil {
			delete(events.waiting, number)
			c <- why
		}
		events.Unlock()
	}
}

// ask says what happens and waits for the answer, where there is someone who gives it.
func ask(what fields) (why string) {
	events.Lock()
	events.number++
	what["number"] = events.number
	if name := what["event"]; name == "powerOn" || name == "reset" || name == "revert" {
		started[what["vm"].(string)] = events.number
	}
	done := make(chan string, 1)
	if *agent {
		events.waiting[events.number] = done
	}
	say(what)
	events.Unlock()
	if *agent {
		why = <-done
	}
	return why
}

// tell is the host's part of an operation on a VM; the fault is why the host could not play it.
func tell(event string, vm *simulator.VirtualMachine, more fields) types.BaseMethodFault {
	if !*agent { // what nobody acts on is not worth its length: it has all switches of the host
		return nil
	}
	what := describe(vm)
	what["event"] = event
	for k, v := range more {
		what[k] = v
	}
	if why := ask(what); why != "" {
		return &types.GenericVmConfigFault{Reason: why}
	}
	return nil
}

func describe(vm *simulator.VirtualMachine) fields {
	extra := fields{}
	for _, o := range vm.Config.ExtraConfig {
		extra[o.GetOptionValue().Key] = o.GetOptionValue().Value
	}
	var nics []fields
	for _, d := range vm.Config.Hardware.Device {
		if card, ok := d.(types.BaseVirtualEthernetCard); ok {
			c := card.GetVirtualEthernetCard()
			nics = append(nics, fields{
				"model":     strings.TrimPrefix(fmt.Sprintf("%T", d), "*types."),
				"mac":       strings.ToLower(c.MacAddress),
				"network":   networkOf(c),
				"connected": c.Connectable == nil || c.Connectable.Connected || c.Connectable.StartConnected,
			})
		}
	}
	h := hostOf(vm)
	return fields{
		"disks":      diskFiles(vm.Config.Hardware.Device),
		"vm":         vm.Self.Value,
		"name":       vm.Name,
		"cpus":       vm.Config.Hardware.NumCPU,
		"memory_mib": vm.Config.Hardware.MemoryMB,
		"extra":      extra,
		"nics":       nics,
		"host":       h.Name,
		"switches":   switches(h),
	}
}

func switches(h *simulator.HostSystem) []fields {
	var out []fields
	for _, v := range h.Config.Network.Vswitch {
		var groups []fields
		for _, g := range h.Config.Network.Portgroup {
			if g.Spec.VswitchName != v.Name {
				continue
			}
			bits := int64(0)
			if s := g.ComputedPolicy.ShapingPolicy; s != nil && s.Enabled != nil && *s.Enabled {
				bits = s.AverageBandwidth
			}
			groups = append(groups, fields{"name": g.Spec.Name, "vlan": g.Spec.VlanId, "bits": bits})
		}
		uplinks := []string{}
		for _, k := range v.Pnic {
			uplinks = append(uplinks, strings.TrimPrefix(k, pnicKey("")))
		}
		out = append(out, fields{"name": v.Name, "mtu": v.Mtu, "uplinks": uplinks, "groups": groups})
	}
	return out
}
