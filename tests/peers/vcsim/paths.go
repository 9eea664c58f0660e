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

// collector adds: a property's path may end at one element of an array, named by its key, says the
// PropertyCollector's reference: networkInfo.vswitch["key-vim.host.VirtualSwitch-vSwitch0"], or
// config.hardware.device[4000].
type collector struct{ *simulator.PropertyCollector }

// keyed splits such a path; ok says that it is one.
func keyed(path string) (array, key string, ok bool) {
	array, key, ok = strings.Cut(path, "[")
	return array, strings.Trim(strings.TrimSuffix(key, "]"), `"`), ok && strings.HasSuffix(key, "]")
}

// keyOf is an element's key, which an embedded type may have.
func keyOf(element reflect.Value) string {
	for element.Kind() == reflect.Interface || element.Kind() == reflect.Ptr {
		element = element.Elem()
	}
	return fmt.Sprint(element.FieldByName("Key").Interface())
}

func (c collector) RetrievePropertiesEx(ctx *simulator.Context, r *types.RetrievePropertiesEx) soap.HasFault {
	var asked []string
	plain := *r
	plain.SpecSet = nil
	for _, spec := range r.SpecSet {
		spec.PropSet = append([]types.PropertySpec(nil), spec.PropSet...)
		for i, p := range spec.PropSet {
			var paths []string
			for _, path := range p.PathSet {
				if array, _, ok := keyed(path); ok {
					asked = append(asked, path)
					path = array
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
		found.Objects[i].PropSet = elements(found.Objects[i].PropSet, asked)
	}
	return res
}

// elements has the asked elements in place of their arrays; one that is not there is not set.
func elements(have []types.DynamicProperty, asked []string) []types.DynamicProperty {
	arrays := map[string]bool{}
	var out []types.DynamicProperty
	for _, path := range asked {
		array, key, _ := keyed(path)
		arrays[array] = true
		for _, p := range have {
			if p.Name != array {
				continue
			}
			list := reflect.ValueOf(p.Val).Elem().Field(0)
			for i := 0; i < list.Len(); i++ {
				if keyOf(list.Index(i)) == key {
					out = append(out, types.DynamicProperty{Name: path, Val: list.Index(i).Interface()})
				}
			}
		}
	}
	for _, p := range have {
		if !arrays[p.Name] {
			out = append(out, p)
		}
	}
	return out
}
