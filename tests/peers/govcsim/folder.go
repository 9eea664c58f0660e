package main

import (
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// folder adds what a VM is refused for when it is made: its name, its datastore, its networks. The
// simulator panics at some of it, and leaves half a VM.
type folder struct{ *simulator.Folder }

func taken(f *simulator.Folder, name string) types.BaseMethodFault {
	if e := simulator.Map.FindByName(name, f.ChildEntity); e != nil {
		return &types.DuplicateName{Name: name, Object: e.Reference()}
	}
	return nil
}

func (f folder) CreateVMTask(ctx *simulator.Context, c *types.CreateVM_Task) soap.HasFault {
	if bad := f.refuse(c); bad != nil {
		return &methods.CreateVM_TaskBody{
			Res: &types.CreateVM_TaskResponse{Returnval: failed(f.Folder, "createVm", bad)},
		}
	}
	body := f.Folder.CreateVMTask(ctx, c)
	ref := body.(*methods.CreateVM_TaskBody).Res.Returnval
	if task := simulator.Map.Get(ref).(*simulator.Task); task.Info.Error == nil {
		made := task.Info.Result.(types.ManagedObjectReference)
		machine{simulator.Map.Get(made).(*simulator.VirtualMachine)}.tidy()
	}
	return body
}

func (f folder) refuse(c *types.CreateVM_Task) types.BaseMethodFault {
	if bad := taken(f.Folder, c.Config.Name); bad != nil {
		return bad
	}
	if c.Config.Files == nil {
		return &types.InvalidVmConfig{Property: "configSpec.files.vmPathName"}
	}
	h := chosen(c)
	if h == nil {
		return &types.InvalidArgument{InvalidProperty: "pool"}
	}
	var where object.DatastorePath
	if !where.FromString(c.Config.Files.VmPathName) {
		return &types.InvalidDatastorePath{DatastorePath: c.Config.Files.VmPathName}
	}
	if simulator.Map.FindByName(where.Datastore, h.Datastore) == nil {
		return &types.InvalidDatastorePath{DatastorePath: c.Config.Files.VmPathName}
	}
	return badDevices(h, &c.Config)
}

// chosen is the host that a VM is made on; one of a cluster's is chosen here, as all else is to be
// judged by it. nil: the pool and the host do not belong together.
func chosen(c *types.CreateVM_Task) *simulator.HostSystem {
	for _, e := range simulator.Map.All("HostSystem") {
		h := e.(*simulator.HostSystem)
		if c.Host != nil && *c.Host != h.Self {
			continue
		}
		if rootPool(c.Pool) == poolOf(h) {
			c.Host = &h.Self
			return h
		}
	}
	return nil
}
