// A vCenter or an ESXi host that keeps the vSphere API's published rules where govmomi's simulator,
// which does all the rest, lets them pass. Each room says which rules it adds.
//
// It prints one line of JSON for each event, the first when it serves, and ends on SIGTERM or at
// the end of its standard input.
package main

import (
	"crypto/tls"
	"flag"
	"log"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/simulator/vpx"
	_ "github.com/vmware/govmomi/vapi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
)

var (
	isESX      = flag.Bool("esx", false, "one ESXi host, else a vCenter")
	listen     = flag.String("listen", "127.0.0.1:0", "address and port")
	cert       = flag.String("cert", "", "PEM file")
	key        = flag.String("key", "", "PEM file")
	login      = flag.String("user", "user:pass", "who may log in")
	hosts      = flag.Int("hosts", 1, "hosts of a vCenter")
	cluster    = flag.Int("cluster", 0, "hosts of its one cluster")
	pools      = flag.Int("pools", 0, "resource pools within the cluster")
	datastores = flag.Int("datastores", 1, "datastores, each on every host")
	vms        = flag.Int("vms", 0, "VMs on each host, powered on")
	pnics      = flag.String("pnics", "1000,1000", "each physical NIC's speed in Mbit/s")
	cpus       = flag.Int("cpus", 4, "threads of each host's processor")
	memory     = flag.Int64("memory", 16384, "MiB of each host")
	api        = flag.String("api", "", "version of the API that is offered, as 8.0.2.0")
	idle       = flag.Duration("idle", 0, "a session that is idle for so long ends")
	delay      = flag.String("delay", "", "Method:milliseconds,...; the method * is each")
	lacking    = flag.String("lacking", "", "privileges that nobody has, Id,Id or Id@Type")
	agent      = flag.Bool("agent", false, "events of VMs wait for a reader's answer")
)

func delays(c *simulator.DelayConfig) {
	c.MethodDelay = map[string]int{}
	for _, part := range words(*delay) {
		method, text, _ := strings.Cut(part, ":")
		ms, err := strconv.Atoi(text)
		if err != nil {
			log.Fatalf("-delay %s: %s", part, err)
		}
		if method == "*" {
			c.Delay = ms
		} else {
			c.MethodDelay[method] = ms
		}
	}
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

func model() *simulator.Model {
	if *api != "" {
		esx.ServiceContent.About.ApiVersion = *api
		vpx.ServiceContent.About.ApiVersion = *api
	}
	m := simulator.ESX()
	if !*isESX {
		m = simulator.VPX()
		m.Portgroup = 0 // and so no distributed switch
		m.Host, m.ClusterHost, m.Pool = *hosts, *cluster, *pools
		m.Cluster = 0
		if *cluster > 0 {
			m.Cluster = 1
		}
	}
	m.Machine, m.Datastore = *vms, *datastores
	delays(&m.DelayConfig)
	simulator.SessionIdleTimeout = *idle
	return m
}

// extend is what a call's receiver is, where ours does more.
func extend(o mo.Reference) mo.Reference {
	switch x := o.(type) {
	case *simulator.HostNetworkSystem:
		return network{x}
	case *simulator.Folder:
		return folder{x}
	case *simulator.VirtualMachine:
		return machine{x}
	case *simulator.VirtualMachineSnapshot:
		return snapshot{x}
	case *simulator.VirtualDiskManager:
		return disks{x}
	case *simulator.PropertyCollector:
		return collector{x}
	case *simulator.AuthorizationManager:
		return authorization{x}
	}
	return o
}

func main() {
	flag.Parse()
	m := model()
	hardware()
	if err := m.Create(); err != nil {
		log.Fatal(err)
	}
	equip()
	simulator.Extend, simulator.Refuse = extend, denied

	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		log.Fatal(err)
	}
	m.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	user, password, _ := strings.Cut(*login, ":")
	m.Service.Listen = &url.URL{Host: *listen, User: url.UserPassword(user, password)}
	m.Service.RegisterEndpoints = true
	s := m.Service.NewServer()
	say(map[string]interface{}{"event": "ready", "address": s.URL.Host})

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		answers(os.Stdin)
		stop <- syscall.SIGTERM
	}()
	<-stop
	// a client may still wait for updates: its call is not waited for
	go s.Close()
	time.AfterFunc(5*time.Second, func() { os.Exit(1) })
	m.Remove()
}
