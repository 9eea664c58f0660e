package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const longest = 31 // of a switch's name: vSphere's configuration maximums

// network adds: a vSwitch keeps its spec, its uplinks must exist and be free, updates, and what is
// in use is not removed. The vSphere API's reference, HostNetworkSystem, has the faults.
type network struct{ *simulator.HostNetworkSystem }

func fault(f types.BaseMethodFault, text string) *soap.Fault { return simulator.Fault(text, f) }

func (n network) vswitch(name string) *types.HostVirtualSwitch {
	for i := range n.NetworkInfo.Vswitch {
		if n.NetworkInfo.Vswitch[i].Name == name {
			return &n.NetworkInfo.Vswitch[i]
		}
	}
	return nil
}

func (n network) group(name string) *types.HostPortGroup {
	for i := range n.NetworkInfo.Portgroup {
		if n.NetworkInfo.Portgroup[i].Spec.Name == name {
			return &n.NetworkInfo.Portgroup[i]
		}
	}
	return nil
}

// uplinks are the devices that a spec's bridge names.
func uplinks(spec *types.HostVirtualSwitchSpec) []string {
	switch b := spec.Bridge.(type) {
	case *types.HostVirtualSwitchBondBridge:
		return b.NicDevice
	case *types.HostVirtualSwitchSimpleBridge:
		return []string{b.NicDevice}
	}
	return nil
}

// refuse is the fault of a spec for the switch of that name.
func (n network) refuse(name string, spec *types.HostVirtualSwitchSpec) *soap.Fault {
	if spec.Mtu != 0 && (spec.Mtu < 1280 || spec.Mtu > 9000) {
		return fault(&types.InvalidArgument{InvalidProperty: "spec.mtu"}, "MTU")
	}
	for _, device := range uplinks(spec) {
		known := false
		for _, p := range n.NetworkInfo.Pnic {
			known = known || p.Device == device
		}
		if !known {
			return fault(&types.NotFound{}, "no physical NIC "+device)
		}
		for _, v := range n.NetworkInfo.Vswitch {
			for _, taken := range v.Pnic {
				if v.Name != name && taken == pnicKey(device) {
					return fault(&types.ResourceInUse{Name: device}, device+" is taken")
				}
			}
		}
	}
	return nil
}

func (n network) keep(v *types.HostVirtualSwitch, spec types.HostVirtualSwitchSpec) {
	v.Key = "key-vim.host.VirtualSwitch-" + v.Name
	v.Pnic = nil
	for _, device := range uplinks(&spec) {
		v.Pnic = append(v.Pnic, pnicKey(device))
	}
	v.Mtu = 1500
	if spec.Mtu != 0 {
		v.Mtu = spec.Mtu
	}
	v.NumPorts = spec.NumPorts
	if spec.Policy == nil {
		spec.Policy = &types.HostNetworkPolicy{}
	}
	policy := overlaid(n.vswitch("vSwitch0").Spec.Policy, spec.Policy)
	spec.Policy = &policy
	v.Spec = spec
	for i := range n.NetworkInfo.Portgroup {
		if g := &n.NetworkInfo.Portgroup[i]; g.Spec.VswitchName == v.Name {
			g.ComputedPolicy = overlaid(&policy, &g.Spec.Policy)
		}
	}
}

// overlaid is what holds where a policy leaves parts to the one below it.
func overlaid(below, above *types.HostNetworkPolicy) types.HostNetworkPolicy {
	out := *below
	if s := above.Security; s != nil {
		merged := *below.Security
		for _, p := range []struct{ from, to **bool }{
			{&s.AllowPromiscuous, &merged.AllowPromiscuous},
			{&s.MacChanges, &merged.MacChanges},
			{&s.ForgedTransmits, &merged.ForgedTransmits},
		} {
			if *p.from != nil {
				*p.to = *p.from
			}
		}
		out.Security = &merged
	}
	if above.NicTeaming != nil && above.NicTeaming.Policy != "" {
		out.NicTeaming = above.NicTeaming
	}
	if above.ShapingPolicy != nil && above.ShapingPolicy.Enabled != nil {
		out.ShapingPolicy = above.ShapingPolicy
	}
	return out
}

func (n network) AddVirtualSwitch(c *types.AddVirtualSwitch) soap.HasFault {
	spec := types.HostVirtualSwitchSpec{NumPorts: 128}
	if c.Spec != nil {
		spec = *c.Spec
	}
	if c.VswitchName == "" || len(c.VswitchName) > longest {
		return &methods.AddVirtualSwitchBody{
			Fault_: fault(&types.InvalidArgument{InvalidProperty: "vswitchName"}, "name"),
		}
	}
	if n.vswitch(c.VswitchName) == nil {
		if f := n.refuse(c.VswitchName, &spec); f != nil {
			return &methods.AddVirtualSwitchBody{Fault_: f}
		}
	}
	r := n.HostNetworkSystem.AddVirtualSwitch(c)
	if r.Fault() == nil {
		n.keep(n.vswitch(c.VswitchName), spec)
	}
	return r
}

func (n network) UpdateVirtualSwitch(c *types.UpdateVirtualSwitch) soap.HasFault {
	v := n.vswitch(c.VswitchName)
	if v == nil {
		return &methods.UpdateVirtualSwitchBody{Fault_: fault(&types.NotFound{}, c.VswitchName)}
	}
	if f := n.refuse(v.Name, &c.Spec); f != nil {
		return &methods.UpdateVirtualSwitchBody{Fault_: f}
	}
	n.keep(v, c.Spec)
	n.changed()
	return &methods.UpdateVirtualSwitchBody{Res: &types.UpdateVirtualSwitchResponse{}}
}

// RemoveVirtualSwitch takes the unused port groups of the switch along: only virtual adapters keep
// it, says the reference.
func (n network) RemoveVirtualSwitch(ctx *simulator.Context, c *types.RemoveVirtualSwitch) soap.HasFault {
	var groups []string
	for _, g := range n.NetworkInfo.Portgroup {
		if g.Spec.VswitchName == c.VswitchName {
			if n.used(g.Spec.Name) {
				return &methods.RemoveVirtualSwitchBody{
					Fault_: fault(&types.ResourceInUse{Name: c.VswitchName}, g.Spec.Name),
				}
			}
			groups = append(groups, g.Spec.Name)
		}
	}
	for _, name := range groups {
		n.RemovePortGroup(ctx, &types.RemovePortGroup{This: c.This, PgName: name})
	}
	n.copied()
	return n.HostNetworkSystem.RemoveVirtualSwitch(c)
}

// copied puts copies in place of the lists: what is taken out of one moves those behind it, while
// replies to others that looked meanwhile are still being written from it.
func (n network) copied() {
	n.NetworkInfo.Vswitch = append([]types.HostVirtualSwitch(nil), n.NetworkInfo.Vswitch...)
	n.NetworkInfo.Portgroup = append([]types.HostPortGroup(nil), n.NetworkInfo.Portgroup...)
}

// used says whether a VM's adapter on this host, or the host's own, is on the port group.
func (n network) used(group string) bool {
	for _, k := range n.NetworkInfo.Vnic {
		if k.Portgroup == group {
			return true
		}
	}
	for _, e := range simulator.Map.All("VirtualMachine") {
		vm := e.(*simulator.VirtualMachine)
		if vm.Runtime.Host == nil || *vm.Runtime.Host != n.Host.Self || vm.Config == nil {
			continue
		}
		for _, d := range vm.Config.Hardware.Device {
			if c, ok := d.(types.BaseVirtualEthernetCard); ok && networkOf(c.GetVirtualEthernetCard()) == group {
				return true
			}
		}
	}
	return false
}

// elsewhere says whether another host of the datacenter has a port group of that name.
func (n network) elsewhere(group string) bool {
	for _, e := range simulator.Map.All("HostSystem") {
		h := e.(*simulator.HostSystem)
		for _, g := range h.Config.Network.Portgroup {
			if h.Self != n.Host.Self && g.Spec.Name == group {
				return true
			}
		}
	}
	return false
}

func networkOf(c *types.VirtualEthernetCard) string {
	if b, ok := c.Backing.(*types.VirtualEthernetCardNetworkBackingInfo); ok {
		return b.DeviceName
	}
	return ""
}

func hostOf(vm *simulator.VirtualMachine) *simulator.HostSystem {
	return simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem)
}
