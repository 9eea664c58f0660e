package main

import (
	"fmt"
	"log"
	"sort"
	"strconv"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25/types"
)

// hardware makes the template of all hosts: processor and memory.
func hardware() {
	n := int16(*cpus)
	h := esx.HostHardwareInfo
	h.CpuInfo.NumCpuThreads, h.CpuInfo.NumCpuCores, h.CpuInfo.NumCpuPackages = n, n, 1
	h.MemorySize = *memory << 20
	s := esx.HostSystem.Summary.Hardware
	s.NumCpuThreads, s.NumCpuCores, s.NumCpuPkgs = n, n, 1
	s.MemorySize = *memory << 20
}

// equip gives each host its physical NICs, with MACs of their own, and one view of its network.
func equip() {
	all := simulator.Map.All("HostSystem")
	sort.Slice(all, func(i, j int) bool {
		return all[i].Reference().Value < all[j].Reference().Value
	})
	for number, e := range all {
		h := e.(*simulator.HostSystem)
		info := *h.Hardware // each host's processor is another object
		h.Hardware = &info
		h.Config.Network.Pnic = physical(h.Config.Network.Pnic[0], number)
		ns := simulator.Map.Get(*h.ConfigManager.NetworkSystem).(*simulator.HostNetworkSystem)
		ns.NetworkInfo = h.Config.Network
	}
}

func physical(template types.PhysicalNic, host int) []types.PhysicalNic {
	var out []types.PhysicalNic
	for i, text := range words(*pnics) {
		mbit, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			log.Fatalf("-pnics %s: %s", text, err)
		}
		p := template
		p.Device = fmt.Sprintf("vmnic%d", i)
		p.Key = pnicKey(p.Device)
		p.Mac = fmt.Sprintf("00:0c:29:81:%02x:%02x", host, i)
		p.Pci = fmt.Sprintf("0000:%02x:00.0", 3+i)
		p.Driver = "ixgben"
		p.LinkSpeed = &types.PhysicalNicLinkInfo{SpeedMb: int32(mbit), Duplex: true}
		if mbit == 0 {
			p.LinkSpeed = nil // the link is down
		}
		p.ValidLinkSpecification = []types.PhysicalNicLinkInfo{{SpeedMb: int32(mbit), Duplex: true}}
		p.Spec.LinkSpeed = p.LinkSpeed
		out = append(out, p)
	}
	return out
}

func pnicKey(device string) string { return "key-vim.host.PhysicalNic-" + device }
