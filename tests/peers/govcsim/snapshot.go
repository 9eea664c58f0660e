package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// snapshot adds: a revert restores the configuration and the power state, says the reference of
// RevertToSnapshot_Task; disks and memory are the host's part.
type snapshot struct {
	*simulator.VirtualMachineSnapshot
}

// withMemory are the snapshots of running VMs that have their memory.
var withMemory = map[string]bool{}

func (m machine) CreateSnapshotTask(r *types.CreateSnapshot_Task) soap.HasFault {
	body := m.VirtualMachine.CreateSnapshotTask(r)
	ref := body.(*methods.CreateSnapshot_TaskBody).Res.Returnval
	task := simulator.Map.Get(ref).(*simulator.Task)
	if task.Info.Error != nil {
		return body
	}
	made := task.Info.Result.(types.ManagedObjectReference)
	s := simulator.Map.Get(made).(*simulator.VirtualMachineSnapshot)
	s.Config = types.VirtualMachineConfigInfo{}
	simulator.DeepCopy(m.Config, &s.Config)
	memory := r.Memory && m.Runtime.PowerState == on
	f := tell("snapshot", m.VirtualMachine, fields{"snapshot": made.Value, "memory": memory})
	if f != nil {
		body.(*methods.CreateSnapshot_TaskBody).Res.Returnval = failed(m.VirtualMachine, "createSnapshot", f)
		return body
	}
	events.Lock()
	withMemory[made.Value] = memory
	events.Unlock()
	return body
}

// revert is to be called with the VM not locked.
func revert(ctx *simulator.Context, s *simulator.VirtualMachineSnapshot, quiet bool) types.BaseMethodFault {
	vm := simulator.Map.Get(s.Vm).(*simulator.VirtualMachine)
	events.Lock()
	memory := withMemory[s.Self.Value]
	events.Unlock()
	state := off
	if memory && !quiet {
		state = on
	}
	var f types.BaseMethodFault
	simulator.Map.WithLock(vm, func() {
		config := &types.VirtualMachineConfigInfo{}
		simulator.DeepCopy(&s.Config, config)
		vm.Config = config
		machine{vm}.forget()
		f = tell("revert", vm, fields{"snapshot": s.Self.Value, "memory": memory && !quiet})
		if f != nil {
			return
		}
		simulator.Map.Update(vm, []types.PropertyChange{
			{Name: "config", Val: *config},
			{Name: "config.extraConfig", Val: config.ExtraConfig},
			{Name: "runtime.powerState", Val: state},
			{Name: "summary.runtime.powerState", Val: state},
			{Name: "snapshot.currentSnapshot", Val: s.Self},
		})
	})
	return f
}

func (s snapshot) RevertToSnapshotTask(ctx *simulator.Context, r *types.RevertToSnapshot_Task) soap.HasFault {
	quiet := r.SuppressPowerOn != nil && *r.SuppressPowerOn
	// the task is the VM's, as the reference has it; the simulator takes it for the snapshot's
	task := simulator.CreateTask(simulator.Map.Get(s.Vm), "revertToSnapshot",
		func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
			return nil, revert(ctx, s.VirtualMachineSnapshot, quiet)
		})
	return &methods.RevertToSnapshot_TaskBody{
		Res: &types.RevertToSnapshot_TaskResponse{Returnval: task.Run()},
	}
}

// RevertToCurrentSnapshotTask is left to RevertToSnapshot_Task: its caller holds the VM's lock.
func (m machine) RevertToCurrentSnapshotTask(r *types.RevertToCurrentSnapshot_Task) soap.HasFault {
	return &methods.RevertToCurrentSnapshot_TaskBody{
		Fault_: fault(&types.NotSupported{}, "not simulated: RevertToSnapshot_Task is"),
	}
}

func (s snapshot) RemoveSnapshotTask(ctx *simulator.Context, r *types.RemoveSnapshot_Task) soap.HasFault {
	vm := simulator.Map.Get(s.Vm).(*simulator.VirtualMachine)
	tell("unsnapshot", vm, fields{"snapshot": s.Self.Value})
	body := s.VirtualMachineSnapshot.RemoveSnapshotTask(ctx, r)
	ref := body.(*methods.RemoveSnapshot_TaskBody).Res.Returnval
	simulator.Map.Get(ref).(*simulator.Task).Info.Entity = &vm.Self
	return body
}
