package main

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// collector adds: a property's path may go to one element of an array, named by its key, says the
// PropertyCollector's reference: networkInfo.vswitch["key-vim.host.VirtualSwitch-vSwitch0"], or
// config.hardware.device[4000]; here, at most one field further.
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

func (c collector) RetrievePropertiesEx(ctx *simulator.Context, r *types.RetrievePropertiesEx) soap.HasFault {
	var asked []string
	arrays := map[string]bool{} // that are asked for in full
	plain := *r
	plain.SpecSet = nil
	for _, spec := range r.SpecSet {
		spec.PropSet = append([]types.PropertySpec(nil), spec.PropSet...)
		for i, p := range spec.PropSet {
			var paths []string
			for _, path := range p.PathSet {
				if array, _, _, ok := keyed(path); ok {
					asked = append(asked, path)
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
	if len(asked) == 0 || res.Fault() != nil {
		return res
	}
	found := res.(*methods.RetrievePropertiesExBody).Res.Returnval
	for i := range found.Objects {
		found.Objects[i].PropSet = elements(found.Objects[i].PropSet, asked, arrays)
	}
	return res
}

// elements has the asked elements in place of their arrays; one that is not there is not set.
func elements(have []types.DynamicProperty, asked []string, full map[string]bool) []types.DynamicProperty {
	arrays := map[string]bool{}
	var out []types.DynamicProperty
	for _, path := range asked {
		array, key, field, _ := keyed(path)
		arrays[array] = true
		for _, p := range have {
			if p.Name != array {
				continue
			}
			list := reflect.ValueOf(p.Val).Elem().Field(0)
			for i := 0; i < list.Len(); i++ {
				found := list.Index(i)
				if fmt.Sprint(inside(found, "key").Interface()) != key {
					continue
				}
				if field != "" {
					found = inside(found, field)
				}
				out = append(out, types.DynamicProperty{Name: path, Val: found.Interface()})
			}
		}
	}
	for _, p := range have {
		if full[p.Name] || !arrays[p.Name] {
			out = append(out, p)
		}
	}
	return out
}
