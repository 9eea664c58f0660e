package main

import (
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// required is the privilege on the object itself that the reference names for a call; those that
// depend on what is asked (datastores, networks, parts of a VM's configuration) are not enforced.
var required = map[string]string{
	"AddPortGroup":          "Host.Config.Network",
	"AddVirtualSwitch":      "Host.Config.Network",
	"RemovePortGroup":       "Host.Config.Network",
	"RemoveVirtualSwitch":   "Host.Config.Network",
	"UpdatePortGroup":       "Host.Config.Network",
	"UpdateVirtualSwitch":   "Host.Config.Network",
	"CloneVM_Task":          "VirtualMachine.Provisioning.Clone",
	"CreateSnapshot_Task":   "VirtualMachine.State.CreateSnapshot",
	"CreateVM_Task":         "VirtualMachine.Inventory.Create",
	"MarkAsTemplate":        "VirtualMachine.Provisioning.MarkAsTemplate",
	"PowerOffVM_Task":       "VirtualMachine.Interact.PowerOff",
	"PowerOnVM_Task":        "VirtualMachine.Interact.PowerOn",
	"RebootGuest":           "VirtualMachine.Interact.Reset",
	"RemoveSnapshot_Task":   "VirtualMachine.State.RemoveSnapshot",
	"ResetVM_Task":          "VirtualMachine.Interact.Reset",
	"RevertToSnapshot_Task": "VirtualMachine.State.RevertToSnapshot",
	"ShutdownGuest":         "VirtualMachine.Interact.PowerOff",
}

// denied is NoPermission where a call's privilege is lacking.
func denied(o mo.Reference, method string) *soap.Fault {
	id := required[method]
	switch x := o.(type) {
	case *simulator.VirtualMachine:
		if method == "CloneVM_Task" && x.Config.Template {
			id = "VirtualMachine.Provisioning.DeployTemplate"
		}
		if method == "Destroy_Task" {
			id = "VirtualMachine.Inventory.Delete"
		}
	case *simulator.HostNetworkSystem:
		o = x.Host
	}
	if id == "" || !lacks(o.Reference(), id) {
		return nil
	}
	return fault(&types.NoPermission{Object: o.Reference(), PrivilegeId: id}, "no permission")
}

// authorization says which privileges -lacking leaves.
type authorization struct {
	*simulator.AuthorizationManager
}

func lacks(e types.ManagedObjectReference, id string) bool {
	for _, word := range words(*lacking) {
		name, kind, typed := strings.Cut(word, "@")
		if name == id && (!typed || kind == e.Type) {
			return true
		}
	}
	return false
}

func (a authorization) HasPrivilegeOnEntities(r *types.HasPrivilegeOnEntities) soap.HasFault {
	body := a.AuthorizationManager.HasPrivilegeOnEntities(r)
	res := body.(*methods.HasPrivilegeOnEntitiesBody).Res
	for i := range res.Returnval {
		for j := range res.Returnval[i].PrivAvailability {
			p := &res.Returnval[i].PrivAvailability[j]
			p.IsGranted = !lacks(res.Returnval[i].Entity, p.PrivId)
		}
	}
	return body
}
