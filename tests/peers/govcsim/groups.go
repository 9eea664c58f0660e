package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func groupKey(name string) string { return "key-vim.host.PortGroup-" + name }

// members lists a switch's port groups by key or by name: the simulator itself looks for names.
func (n network) members(name func(string) string) {
	of := map[string][]string{}
	for _, g := range n.NetworkInfo.Portgroup {
		of[g.Spec.VswitchName] = append(of[g.Spec.VswitchName], name(g.Spec.Name))
	}
	for i := range n.NetworkInfo.Vswitch {
		v := &n.NetworkInfo.Vswitch[i]
		v.Portgroup = of[v.Name]
	}
}

// networks keeps the property "network" of the host and of what it is in: the simulator does not.
func (n network) networks() {
	named := map[string]types.ManagedObjectReference{}
	for _, e := range simulator.Map.All("Network") {
		named[e.(*mo.Network).Name] = e.Reference()
	}
	have := func(h *simulator.HostSystem) []types.ManagedObjectReference {
		var out []types.ManagedObjectReference
		for _, g := range h.Config.Network.Portgroup {
			if ref, ok := named[g.Spec.Name]; ok {
				out = append(out, ref)
			}
		}
		return out
	}
	h := simulator.Map.Get(n.Host.Self).(*simulator.HostSystem)
	set := func(o mo.Reference, refs []types.ManagedObjectReference) {
		simulator.Map.Update(o, []types.PropertyChange{{Name: "network", Val: refs}})
	}
	set(h, have(h))
	var all []types.ManagedObjectReference
	seen := map[types.ManagedObjectReference]bool{}
	for _, e := range simulator.Map.All("HostSystem") {
		if other := e.(*simulator.HostSystem); *other.Parent == *h.Parent {
			for _, ref := range have(other) {
				if !seen[ref] {
					seen[ref] = true
					all = append(all, ref)
				}
			}
		}
	}
	set(simulator.Map.Get(*h.Parent), all)
}

func badVlan(id int32) *soap.Fault {
	if id < 0 || id > 4095 {
		return fault(&types.InvalidArgument{InvalidProperty: "portgrp.vlanId"}, "VLAN")
	}
	return nil
}

// AddPortGroup: the simulator forbids a name that another host of the datacenter has; vSphere has
// one network for both.
func (n network) AddPortGroup(ctx *simulator.Context, c *types.AddPortGroup) soap.HasFault {
	body := &methods.AddPortGroupBody{}
	if n.group(c.Portgrp.Name) != nil {
		body.Fault_ = fault(&types.AlreadyExists{Name: c.Portgrp.Name}, c.Portgrp.Name)
		return body
	}
	if body.Fault_ = badVlan(c.Portgrp.VlanId); body.Fault_ != nil {
		return body
	}
	v := n.vswitch(c.Portgrp.VswitchName)
	if v != nil && n.elsewhere(c.Portgrp.Name) {
		n.NetworkInfo.Portgroup = append(n.NetworkInfo.Portgroup, types.HostPortGroup{
			Key: groupKey(c.Portgrp.Name), Spec: c.Portgrp,
		})
		body.Res = &types.AddPortGroupResponse{}
	} else if r := n.HostNetworkSystem.AddPortGroup(ctx, c); r.Fault() != nil {
		return r
	} else {
		body = r.(*methods.AddPortGroupBody)
	}
	g := n.group(c.Portgrp.Name)
	g.Vswitch = v.Key
	g.ComputedPolicy = overlaid(v.Spec.Policy, &g.Spec.Policy)
	n.members(groupKey)
	n.networks()
	return body
}

// UpdatePortGroup does not simulate a new name.
func (n network) UpdatePortGroup(c *types.UpdatePortGroup) soap.HasFault {
	body := &methods.UpdatePortGroupBody{}
	g, v := n.group(c.PgName), n.vswitch(c.Portgrp.VswitchName)
	switch {
	case g == nil || v == nil:
		body.Fault_ = fault(&types.NotFound{}, c.PgName)
	case c.Portgrp.Name != c.PgName:
		body.Fault_ = fault(&types.NotSupported{}, "a new name is not simulated")
	default:
		body.Fault_ = badVlan(c.Portgrp.VlanId)
	}
	if body.Fault_ != nil {
		return body
	}
	g.Spec, g.Vswitch = c.Portgrp, v.Key
	g.ComputedPolicy = overlaid(v.Spec.Policy, &g.Spec.Policy)
	n.members(groupKey)
	n.changed()
	body.Res = &types.UpdatePortGroupResponse{}
	return body
}

// changed tells of what may touch VMs that run.
func (n network) changed() {
	if !*agent {
		return
	}
	h := simulator.Map.Get(n.Host.Self).(*simulator.HostSystem)
	ask(fields{"event": "network", "host": h.Name, "switches": switches(h)})
}

func (n network) RemovePortGroup(ctx *simulator.Context, c *types.RemovePortGroup) soap.HasFault {
	body := &methods.RemovePortGroupBody{}
	if n.group(c.PgName) == nil {
		body.Fault_ = fault(&types.NotFound{}, c.PgName)
		return body
	}
	if n.used(c.PgName) {
		body.Fault_ = fault(&types.ResourceInUse{Name: c.PgName}, c.PgName)
		return body
	}
	n.copied()
	defer n.networks()
	defer n.members(groupKey)
	if !n.elsewhere(c.PgName) {
		n.members(func(name string) string { return name })
		return n.HostNetworkSystem.RemovePortGroup(ctx, c)
	}
	for i, g := range n.NetworkInfo.Portgroup {
		if g.Spec.Name == c.PgName {
			n.NetworkInfo.Portgroup = append(n.NetworkInfo.Portgroup[:i], n.NetworkInfo.Portgroup[i+1:]...)
			break
		}
	}
	body.Res = &types.RemovePortGroupResponse{}
	return body
}
