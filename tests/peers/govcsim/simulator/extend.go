package simulator

import (
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
)

// Extend names the receiver of a call to a managed object: the object itself, or a type that embeds
// it and has more or other methods. The registry keeps the object, so all else still finds it.
// One line of simulator.go asks it; the build puts both in place.
var Extend = func(o mo.Reference) mo.Reference { return o }

// Refuse is the fault of a call before it is made, nil as a rule.
var Refuse = func(o mo.Reference, method string) *soap.Fault { return nil }

// DeepCopy lets a clone have devices of its own: the simulator's own clone shares its source's.
func DeepCopy(src, dst interface{}) { deepCopy(src, dst) }
