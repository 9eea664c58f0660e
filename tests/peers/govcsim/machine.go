package main

import (
	"fmt"
	"reflect"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	on  = types.VirtualMachinePowerStatePoweredOn
	off = types.VirtualMachinePowerStatePoweredOff
)

// machine adds: a host's part in what happens to a VM, addresses that end with the guest, and an
// extraConfig that is a map.
type machine struct{ *simulator.VirtualMachine }

// failed is a task that ends with that fault.
func failed(e mo.Reference, name string, f types.BaseMethodFault) types.ManagedObjectReference {
	return simulator.CreateTask(e, name, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return nil, f
	}).Run()
}

func (m machine) tools() bool {
	return m.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
}

func (m machine) PowerOnVMTask(ctx *simulator.Context, r *types.PowerOnVM_Task) soap.HasFault {
	if m.Runtime.PowerState == off && !m.Config.Template {
		m.forget()
		if f := tell("powerOn", m.VirtualMachine, nil); f != nil {
			return &methods.PowerOnVM_TaskBody{
				Res: &types.PowerOnVM_TaskResponse{Returnval: failed(m.VirtualMachine, "powerOn", f)},
			}
		}
	}
	return m.VirtualMachine.PowerOnVMTask(ctx, r)
}

func (m machine) PowerOffVMTask(ctx *simulator.Context, r *types.PowerOffVM_Task) soap.HasFault {
	if m.Runtime.PowerState == on {
		tell("powerOff", m.VirtualMachine, nil)
		m.forget()
	}
	return m.VirtualMachine.PowerOffVMTask(ctx, r)
}

func (m machine) ResetVMTask(ctx *simulator.Context, r *types.ResetVM_Task) soap.HasFault {
	if m.Runtime.PowerState == on {
		tell("reset", m.VirtualMachine, nil)
		m.forget()
	}
	return m.VirtualMachine.ResetVMTask(ctx, r)
}

// RebootGuest, as ShutdownGuest, is the guest's own deed: it needs VMware Tools.
func (m machine) RebootGuest(r *types.RebootGuest) soap.HasFault {
	if !m.tools() {
		return &methods.RebootGuestBody{Fault_: fault(&types.ToolsUnavailable{}, "no VMware Tools")}
	}
	tell("reset", m.VirtualMachine, nil)
	m.forget()
	return &methods.RebootGuestBody{Res: &types.RebootGuestResponse{}}
}

func (m machine) ShutdownGuest(ctx *simulator.Context, r *types.ShutdownGuest) soap.HasFault {
	if m.Runtime.PowerState == on {
		if !m.tools() {
			return &methods.ShutdownGuestBody{Fault_: fault(&types.ToolsUnavailable{}, "no VMware Tools")}
		}
		tell("powerOff", m.VirtualMachine, nil)
		m.forget()
	}
	return m.VirtualMachine.ShutdownGuest(ctx, r)
}

func (m machine) DestroyTask(ctx *simulator.Context, r *types.Destroy_Task) soap.HasFault {
	if m.Runtime.PowerState != on {
		tell("destroy", m.VirtualMachine, nil)
	}
	return m.VirtualMachine.DestroyTask(ctx, r)
}

// tidy has each key of extraConfig once, the last value of it, and none with the value "".
func (m machine) tidy() {
	last, order := map[string]types.BaseOptionValue{}, []string{}
	for _, o := range m.Config.ExtraConfig {
		key := o.GetOptionValue().Key
		if _, known := last[key]; !known {
			order = append(order, key)
		}
		last[key] = o
	}
	var kept []types.BaseOptionValue
	for _, key := range order {
		if fmt.Sprint(last[key].GetOptionValue().Value) != "" {
			kept = append(kept, last[key])
		}
	}
	simulator.Map.Update(m.VirtualMachine, []types.PropertyChange{{Name: "config.extraConfig", Val: kept}})
}

// refuse is the fault of a change; what a running VM does not take is in the reference's
// VirtualMachineConfigSpec, that a device's type stays in its VirtualDeviceConfigSpec.
func (m machine) refuse(spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	hot := func(allowed *bool) bool { return allowed != nil && *allowed }
	now := m.Config.Hardware
	if m.Runtime.PowerState == on {
		if spec.NumCPUs != 0 && spec.NumCPUs != now.NumCPU && !hot(m.Config.CpuHotAddEnabled) {
			return &types.CpuHotPlugNotSupported{}
		}
		if spec.MemoryMB != 0 && spec.MemoryMB != int64(now.MemoryMB) && !hot(m.Config.MemoryHotAddEnabled) {
			return &types.MemoryHotPlugNotSupported{}
		}
	}
	for i, change := range spec.DeviceChange {
		c := change.GetVirtualDeviceConfigSpec()
		if c.Operation != types.VirtualDeviceConfigSpecOperationEdit {
			continue
		}
		former := object.VirtualDeviceList(now.Device).FindByKey(c.Device.GetVirtualDevice().Key)
		if former == nil || reflect.TypeOf(former) != reflect.TypeOf(c.Device) {
			return &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
		}
		if c.Device.GetVirtualDevice().DeviceInfo == nil {
			c.Device.GetVirtualDevice().DeviceInfo = &types.Description{}
		}
	}
	return badDevices(hostOf(m.VirtualMachine), spec)
}

// badDevices is the fault of a NIC on a network that the host does not have.
func badDevices(h *simulator.HostSystem, spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	for i, change := range spec.DeviceChange {
		c := change.GetVirtualDeviceConfigSpec()
		card, ok := c.Device.(types.BaseVirtualEthernetCard)
		if !ok || c.Operation == types.VirtualDeviceConfigSpecOperationRemove {
			continue
		}
		name, known := networkOf(card.GetVirtualEthernetCard()), false
		for _, g := range h.Config.Network.Portgroup {
			known = known || g.Spec.Name == name
		}
		if !known {
			return &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
		}
	}
	return nil
}

func (m machine) ReconfigVMTask(ctx *simulator.Context, r *types.ReconfigVM_Task) soap.HasFault {
	if f := m.refuse(&r.Spec); f != nil {
		return &methods.ReconfigVM_TaskBody{
			Res: &types.ReconfigVM_TaskResponse{Returnval: failed(m.VirtualMachine, "reconfigVm", f)},
		}
	}
	r.Spec.DeviceChange = withNetwork(m.Config.Hardware.Device, r.Spec.DeviceChange)
	body := m.VirtualMachine.ReconfigVMTask(ctx, r)
	m.tidy()
	if m.Runtime.PowerState == on && len(r.Spec.DeviceChange) > 0 {
		tell("rewired", m.VirtualMachine, nil)
	}
	return body
}

// withNetwork completes a removed NIC by the network that the simulator asks it for.
func withNetwork(now object.VirtualDeviceList, changes []types.BaseVirtualDeviceConfigSpec) []types.BaseVirtualDeviceConfigSpec {
	for _, change := range changes {
		c := change.GetVirtualDeviceConfigSpec()
		if c.Operation != types.VirtualDeviceConfigSpecOperationAdd {
			former := now.FindByKey(c.Device.GetVirtualDevice().Key)
			if _, nic := former.(types.BaseVirtualEthernetCard); nic && c.Operation == types.VirtualDeviceConfigSpecOperationRemove {
				c.Device = former
			}
		}
	}
	return changes
}
