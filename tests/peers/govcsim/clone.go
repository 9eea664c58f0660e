package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const childDisk = string(types.VirtualMachineRelocateDiskMoveOptionsCreateNewChildDiskBacking)

// rootPool is the uppermost pool above a pool, or the pool itself.
func rootPool(ref types.ManagedObjectReference) types.ManagedObjectReference {
	for {
		e, ok := simulator.Map.Get(ref).(mo.Entity)
		if !ok || e.Entity().Parent == nil || e.Entity().Parent.Type != "ResourcePool" {
			return ref
		}
		ref = *e.Entity().Parent
	}
}

func poolOf(h *simulator.HostSystem) types.ManagedObjectReference {
	switch cr := simulator.Map.Get(*h.Parent).(type) {
	case *mo.ComputeResource:
		return *cr.ResourcePool
	case *simulator.ClusterComputeResource:
		return *cr.ResourcePool
	}
	return types.ManagedObjectReference{}
}

// refuseClone is the fault of a clone's spec. A child disk "is only valid when cloning from a
// snapshot": VirtualMachineRelocateDiskMoveOptions. An ESXi host by itself has no clones.
func (m machine) refuseClone(r *types.CloneVM_Task) types.BaseMethodFault {
	if simulator.Map.IsESX() {
		return &types.NotSupported{}
	}
	f := simulator.Map.Get(r.Folder).(*simulator.Folder)
	if bad := taken(f, r.Name); bad != nil {
		return bad
	}
	if r.Spec.Location.DiskMoveType == childDisk && r.Spec.Snapshot == nil {
		return &types.InvalidArgument{InvalidProperty: "spec.location.diskMoveType"}
	}
	if r.Spec.Snapshot != nil {
		s, ok := simulator.Map.Get(*r.Spec.Snapshot).(*simulator.VirtualMachineSnapshot)
		if !ok || s.Vm != m.Self {
			return &types.InvalidArgument{InvalidProperty: "spec.snapshot"}
		}
	}
	if r.Spec.Template && r.Spec.PowerOn {
		return &types.InvalidArgument{InvalidProperty: "spec.powerOn"}
	}
	return nil
}

// CloneVMTask has the simulator clone from a copy of what the source was at the snapshot, on the
// host that the spec names, and then does what the simulator leaves out.
func (m machine) CloneVMTask(ctx *simulator.Context, r *types.CloneVM_Task) soap.HasFault {
	if f := m.refuseClone(r); f != nil {
		return &methods.CloneVM_TaskBody{
			Res: &types.CloneVM_TaskResponse{Returnval: failed(m.VirtualMachine, "cloneVm", f)},
		}
	}
	config, host, spec := m.Config, m.Runtime.Host, r.Spec
	source := m.source(&spec)
	m.Config = source
	if spec.Location.Host != nil {
		m.Runtime.Host = spec.Location.Host
	}
	if spec.Location.Pool == nil {
		h := hostOf(m.VirtualMachine)
		pool := poolOf(h)
		spec.Location.Pool = &pool
	}
	disks := diskFiles(source.Hardware.Device)
	plain := *r
	plain.Spec = spec
	plain.Spec.Config = &types.VirtualMachineConfigSpec{ExtraConfig: source.ExtraConfig}
	plain.Spec.Template = false
	body := m.VirtualMachine.CloneVMTask(ctx, &plain)
	m.Config, m.Runtime.Host = config, host

	task := simulator.Map.Get(body.(*methods.CloneVM_TaskBody).Res.Returnval).(*simulator.Task)
	if task.Info.Error != nil {
		return body
	}
	clone := machine{simulator.Map.Get(task.Info.Result.(types.ManagedObjectReference)).(*simulator.VirtualMachine)}
	if f := clone.finish(ctx, &spec, disks); f != nil {
		body.(*methods.CloneVM_TaskBody).Res.Returnval = failed(m.VirtualMachine, "cloneVm", f)
	}
	return body
}

// source is a copy of the configuration that is cloned; MACs that the server chose are left out.
func (m machine) source(spec *types.VirtualMachineCloneSpec) *types.VirtualMachineConfigInfo {
	from := m.Config
	if spec.Snapshot != nil {
		from = &simulator.Map.Get(*spec.Snapshot).(*simulator.VirtualMachineSnapshot).Config
	}
	out := &types.VirtualMachineConfigInfo{}
	simulator.DeepCopy(from, out)
	for _, d := range out.Hardware.Device {
		if card, ok := d.(types.BaseVirtualEthernetCard); ok {
			if c := card.GetVirtualEthernetCard(); c.AddressType != string(types.VirtualEthernetCardMacTypeManual) {
				c.MacAddress = ""
			}
		}
	}
	return out
}

func diskFiles(devices []types.BaseVirtualDevice) []string {
	out := []string{}
	for _, d := range devices {
		if disk, ok := d.(*types.VirtualDisk); ok {
			if b, ok := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo); ok {
				out = append(out, b.GetVirtualDeviceFileBackingInfo().FileName)
			}
		}
	}
	return out
}

// finish gives a clone its parent disks, its changed configuration, and its power.
func (m machine) finish(ctx *simulator.Context, spec *types.VirtualMachineCloneSpec, disks []string) types.BaseMethodFault {
	if spec.Location.DiskMoveType == childDisk {
		for _, d := range m.Config.Hardware.Device {
			if disk, ok := d.(*types.VirtualDisk); ok && len(disks) > 0 {
				b, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
				if !ok {
					continue
				}
				b.Parent = &types.VirtualDiskFlatVer2BackingInfo{DiskMode: b.DiskMode}
				b.Parent.FileName, disks = disks[0], disks[1:]
			}
		}
	}
	if spec.Config != nil {
		r := m.ReconfigVMTask(ctx, &types.ReconfigVM_Task{This: m.Self, Spec: *spec.Config})
		if f := errorOf(r.(*methods.ReconfigVM_TaskBody).Res.Returnval); f != nil {
			return f
		}
	}
	m.tidy()
	if spec.Template {
		m.MarkAsTemplate(&types.MarkAsTemplate{This: m.Self})
	}
	var f types.BaseMethodFault
	if spec.PowerOn {
		simulator.Map.WithLock(m.VirtualMachine, func() {
			r := m.PowerOnVMTask(ctx, &types.PowerOnVM_Task{This: m.Self})
			f = errorOf(r.(*methods.PowerOnVM_TaskBody).Res.Returnval)
		})
	}
	return f
}

func errorOf(task types.ManagedObjectReference) types.BaseMethodFault {
	if e := simulator.Map.Get(task).(*simulator.Task).Info.Error; e != nil {
		return e.Fault
	}
	return nil
}
