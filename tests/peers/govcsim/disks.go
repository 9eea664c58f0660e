package main

import (
	"bytes"
	"io"
	"os"
	"path"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// disks adds: a copy of a disk in one file, as VMware's hosted products and qemu-img write it, is a
// disk of the host's own, in two. What is in it is not converted. VirtualDiskManager's reference.
type disks struct{ *simulator.VirtualDiskManager }

var sparse = []byte("KDMV") // how such a file begins: Virtual Disk Format 5.0

// file is where a datastore's path is on this machine; "" = nowhere.
func file(name string) string {
	var at object.DatastorePath
	if !at.FromString(name) {
		return ""
	}
	for _, e := range simulator.Map.All("Datastore") {
		if ds := e.(*simulator.Datastore); ds.Name == at.Datastore {
			return path.Join(ds.Info.GetDatastoreInfo().Url, at.Path)
		}
	}
	return ""
}

func isSparse(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(sparse))
	_, err = io.ReadFull(f, head)
	return err == nil && bytes.Equal(head, sparse)
}

func (d disks) CopyVirtualDiskTask(ctx *simulator.Context, r *types.CopyVirtualDisk_Task) soap.HasFault {
	from, to := file(r.SourceName), file(r.DestName)
	if !isSparse(from) || to == "" || r.DestSpec != nil {
		return d.VirtualDiskManager.CopyVirtualDiskTask(ctx, r)
	}
	task := simulator.CreateTask(d.VirtualDiskManager, "copyVirtualDisk",
		func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
			flat := strings.TrimSuffix(to, ".vmdk") + "-flat.vmdk"
			data, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(flat, data, 0600)
			}
			if err == nil {
				text := "# Disk DescriptorFile\ncreateType=\"vmfs\"\n"
				err = os.WriteFile(to, []byte(text), 0600)
			}
			if err != nil {
				return nil, &types.CannotCreateFile{FileFault: types.FileFault{File: r.DestName}}
			}
			return nil, nil
		})
	return &methods.CopyVirtualDisk_TaskBody{
		Res: &types.CopyVirtualDisk_TaskResponse{Returnval: task.Run()},
	}
}
