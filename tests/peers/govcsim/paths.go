package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// collector adds: a property's path may go to one element of an array, named by its key, says the
// PropertyCollector's reference: networkInfo.vswitch["key-vim.host.VirtualSwitch-vSwitch0"], or
// config.hardware.device[4000]; here, at most one field further. And a network knows its VMs.
type collector struct{ *simulator.PropertyCollector }

// keyed splits such a path; ok says that it is one.
func keyed(path string) (array, key, field string, ok bool) {
	array, rest, ok := strings.Cut(path, "[")
	end := strings.LastIndex(rest, "]")
	if !ok || end < 0 {
		return path, "", "", false
	}
	return array, strings.Trim(rest[:end], `"`), strings.TrimPrefix(rest[end+1:], "."), true
}

// inside is a field of an element, which an embedded type may have.
func inside(element reflect.Value, field string) reflect.Value {
	for element.Kind() == reflect.Interface || element.Kind() == reflect.Ptr {
		element = element.Elem()
	}
	return element.FieldByName(strings.ToUpper(field[:1]) + field[1:])
}

// onNetworks are the VMs by the names of the networks that their NICs are on.
func onNetworks() map[string][]types.ManagedObjectReference {
	out := map[string][]types.ManagedObjectReference{}
	for _, e := range simulator.Map.All("VirtualMachine") {
		vm := e.(*simulator.VirtualMachine)
		if vm.Config == nil {
			continue
		}
		for _, d := range vm.Config.Hardware.Device {
			if card, ok := d.(types.BaseVirtualEthernetCard); ok {
				name := networkOf(card.GetVirtualEthernetCard())
				out[name] = append(out[name], vm.Self)
			}
		}
	}
	return out
}

// withVMs completes what was asked of networks.
func withVMs(found []types.ObjectContent, specs []types.PropertyFilterSpec) {
	asked := false
	for _, spec := range specs {
		for _, p := range spec.PropSet {
			for _, path := range p.PathSet {
				asked = asked || p.Type == "Network" && path == "vm"
			}
		}
	}
	if !asked {
		return
	}
	on := onNetworks()
	for i := range found {
		if n, ok := simulator.Map.Get(found[i].Obj).(*mo.Network); ok {
			for j := range found[i].PropSet {
				if p := &found[i].PropSet[j]; p.Name == "vm" {
					p.Val = types.ArrayOfManagedObjectReference{ManagedObjectReference: on[n.Name]}
				}
			}
		}
	}
}

func (c collector) RetrievePropertiesEx(ctx *simulator.Context, r *types.RetrievePropertiesEx) soap.HasFault {
	var asked []string
	seen := map[string]bool{}
	arrays := map[string]bool{} // that are asked for in full
	plain := *r
	plain.SpecSet = nil
	for _, spec := range r.SpecSet {
		spec.PropSet = append([]types.PropertySpec(nil), spec.PropSet...)
		for i, p := range spec.PropSet {
			var paths []string
			for _, path := range p.PathSet {
				if array, _, _, ok := keyed(path); ok {
					if !seen[path] {
						asked = append(asked, path)
						seen[path] = true
					}
					path = array
				} else {
					arrays[path] = true
				}
				paths = append(paths, path)
			}
			spec.PropSet[i].PathSet = paths
		}
		plain.SpecSet = append(plain.SpecSet, spec)
	}
	res := c.PropertyCollector.RetrievePropertiesEx(ctx, &plain)
	if res.Fault() != nil {
		return res
	}
	found := res.(*methods.RetrievePropertiesExBody).Res.Returnval
	withVMs(found.Objects, r.SpecSet)
	if len(asked) == 0 {
		return res
	}
	for i := range found.Objects {
		found.Objects[i].PropSet = elements(found.Objects[i].PropSet, asked, arrays)
	}
	return res
}

// keyOf is an element's key as it is written in a path.
func keyOf(element reflect.Value) string {
	switch key := inside(element, "key").Interface().(type) {
	case string:
		return key
	case int32:
		return strconv.Itoa(int(key))
	default:
		return fmt.Sprint(key)
	}
}

// elements has the asked elements in place of their arrays; one that is not there is not set.
func elements(have []types.DynamicProperty, asked []string, full map[string]bool) []types.DynamicProperty {
	wanted := map[string]map[string][]string{} // paths, by array and key
	for _, path := range asked {
		array, key, _, _ := keyed(path)
		if wanted[array] == nil {
			wanted[array] = map[string][]string{}
		}
		wanted[array][key] = append(wanted[array][key], path)
	}
	var out []types.DynamicProperty
	for _, p := range have {
		keys := wanted[p.Name]
		if full[p.Name] || keys == nil {
			out = append(out, p)
		}
		if keys == nil {
			continue
		}
		list := reflect.ValueOf(p.Val).Elem().Field(0)
		for i := 0; i < list.Len(); i++ {
			for _, path := range keys[keyOf(list.Index(i))] {
				found := list.Index(i)
				if _, _, field, _ := keyed(path); field != "" {
					found = inside(found, field)
				}
				val := found.Interface()
				if texts, ok := val.([]string); ok { // as it goes on the wire
					val = types.ArrayOfString{String: texts}
				}
				out = append(out, types.DynamicProperty{Name: path, Val: val})
			}
		}
	}
	return out
}
