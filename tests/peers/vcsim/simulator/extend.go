package simulator

import "github.com/vmware/govmomi/vim25/mo"

// Extend names the receiver of a call to a managed object: the object itself, or a type that embeds
// it and has more or other methods. The registry keeps the object, so all else still finds it.
// One line of simulator.go asks it; the build puts both in place.
var Extend = func(o mo.Reference) mo.Reference { return o }

// DeepCopy lets a clone have devices of its own: the simulator's own clone shares its source's.
func DeepCopy(src, dst interface{}) { deepCopy(src, dst) }
