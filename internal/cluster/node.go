package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// nodeEnv is the variable that makes a process a JetStream node.
const nodeEnv = "MUSTER_CLUSTER_NODE"

// node says what a JetStream node is to be.
type node struct {
	Name            string
	Port, RoutePort int
	Routes          []string
	Store           string
}

func (n node) encode() string {
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // texts and numbers
	}
	return string(b)
}

// Child turns this process into a JetStream node when the launcher has started
// it as one, and then does not return. A program that is a cluster's Node calls
// it first.
func Child() {
	text := os.Getenv(nodeEnv)
	if text == "" {
		return
	}
	if err := runNode(text); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runNode runs until it is told to stop, or its launcher is gone.
func runNode(text string) error {
	var n node
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return err
	}
	opts := &server.Options{
		ServerName: n.Name, Host: "127.0.0.1", Port: n.Port, JetStream: true, StoreDir: n.Store, NoSigs: true, NoLog: true,
	}
	if len(n.Routes) > 0 {
		opts.Cluster = server.ClusterOpts{Name: "muster", Host: "127.0.0.1", Port: n.RoutePort}
	}
	for _, r := range n.Routes {
		u, err := url.Parse(r)
		if err != nil {
			return err
		}
		opts.Routes = append(opts.Routes, u)
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		return fmt.Errorf("%s does not start", n.Name)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	orphaned := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(orphaned)
	}()
	select {
	case <-stop:
	case <-orphaned:
	}
	srv.Shutdown()
	srv.WaitForShutdown()
	return nil
}
