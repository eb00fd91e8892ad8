// Package cluster runs a small installation on one machine: three JetStream
// nodes, two instances of Muster, one PostgreSQL. It is there to try out, by
// hand and in tests, what goes on when one of them is killed.
//
// Every node and every instance is a process of its own, in a process group of
// its own, so that a Ctrl-C reaches the launcher alone, which ends them in the
// order in which they depend on each other. On Linux they end with it even when
// it is killed; elsewhere the nodes do.
package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-id/muster/internal/pgserver"
)

// Config says what to run. Dir and Muster are required.
type Config struct {
	// Dir is where everything is kept. PostgreSQL's own user has to be able to
	// pass through it.
	Dir string
	// Muster is the command that is muster, without its arguments, and Env
	// what it gets beside the environment.
	Muster []string
	Env    []string
	// Node is a command whose main calls Child. Default: this program.
	Node []string
	// DatabaseURL is the PostgreSQL. Default: one that Start starts.
	DatabaseURL string
	// Nodes is how many JetStream nodes there are, 1 or 3. Default: 3.
	Nodes int
	// HTTPPorts, of two instances, and NATSPorts, of three nodes, are where to
	// listen. Default: free ones.
	HTTPPorts, NATSPorts []int
	// Log gets what the processes print and a line for each that ends.
	// Default: nobody does.
	Log io.Writer
}

// Cluster is a running installation.
type Cluster struct {
	Nodes, Instances []*Process
	// Token is an administrator's, NATSURL names all nodes.
	Token, NATSURL, DatabaseURL string

	shared   string           // the instances' data folder
	database *pgserver.Server // nil when it is somebody else's
}

// KeyFile is what the instances seal with.
func (c *Cluster) KeyFile() string { return filepath.Join(c.shared, "keys.json") }

// NewProcess is a further process beside a cluster's, which ends with its
// standard input or on SIGTERM. It is not started.
func NewProcess(name string, command, env []string, log io.Writer) *Process {
	return &Process{Name: name, command: command, env: env, log: &lines{w: log}, ready: func(context.Context) error { return nil }}
}

// Process is one of a cluster's processes. Its methods are for one goroutine
// at a time.
type Process struct {
	Name string
	// URL is where it listens.
	URL string

	command []string
	env     []string
	ready   func(context.Context) error
	log     io.Writer

	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{}
}

// errEnded says that a process did not outlive its start, as when somebody was
// quicker to take its port.
var errEnded = errors.New("cluster: ended at its start")

// Start starts a cluster and returns once all of it works. ctx bounds the start
// only.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	for try := 1; ; try++ {
		c, err := start(ctx, cfg, filepath.Join(cfg.Dir, "try-"+strconv.Itoa(try)))
		if !errors.Is(err, errEnded) || try == 5 || len(cfg.NATSPorts) > 0 {
			return c, err
		}
	}
}

// start is one try. Unless the ports are given, the nodes keep theirs below
// fresh, since what they have stored tells them of each other.
func start(ctx context.Context, cfg Config, fresh string) (_ *Cluster, err error) {
	if len(cfg.NATSPorts) > 0 {
		fresh = cfg.Dir
	}
	c := &Cluster{DatabaseURL: cfg.DatabaseURL, Token: rand.Text()}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	log := &lines{w: cfg.Log}
	if cfg.Log == nil {
		log.w = io.Discard
	}
	if len(cfg.Node) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		cfg.Node = []string{self}
	}
	// All at once, so that no two are the same.
	free, err := ports(8)
	if err != nil {
		return nil, err
	}
	routePorts := free[5:]
	if len(cfg.HTTPPorts) == 0 {
		cfg.HTTPPorts = free[:2]
	}
	if len(cfg.NATSPorts) == 0 {
		cfg.NATSPorts = free[2:5]
		if cfg.Nodes == 1 {
			cfg.NATSPorts, routePorts = free[2:3], nil
		}
	}
	if c.DatabaseURL == "" {
		c.database, err = pgserver.Start(ctx, pgserver.Config{DataDir: filepath.Join(cfg.Dir, "postgres"), Restart: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		c.DatabaseURL = c.database.URL()
	}

	var urls, routes []string
	for i, port := range cfg.NATSPorts {
		urls = append(urls, "nats://127.0.0.1:"+strconv.Itoa(port))
		if len(routePorts) > i {
			routes = append(routes, "nats://127.0.0.1:"+strconv.Itoa(routePorts[i]))
		}
	}
	c.NATSURL = strings.Join(urls, ",")
	for i, url := range urls {
		n := node{Name: "nats-" + strconv.Itoa(i+1), Port: cfg.NATSPorts[i], Routes: routes,
			Store: filepath.Join(fresh, "nats-"+strconv.Itoa(i+1))}
		if len(routes) > 0 {
			n.RoutePort = routePorts[i]
		}
		p := &Process{Name: n.Name, URL: url, command: cfg.Node, env: append(os.Environ(), nodeEnv+"="+n.encode()), log: log, ready: func(ctx context.Context) error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(url, "nats://"))
			if err != nil {
				return err
			}
			return conn.Close()
		}}
		c.Nodes = append(c.Nodes, p)
		if err := p.begin(); err != nil {
			return nil, err
		}
	}
	if err := c.waitForJetStream(ctx); err != nil {
		return nil, err
	}

	c.shared = filepath.Join(cfg.Dir, "muster")
	for i, port := range cfg.HTTPPorts {
		address := "127.0.0.1:" + strconv.Itoa(port)
		p := &Process{Name: "muster-" + strconv.Itoa(i+1), URL: "http://" + address, command: append(slices.Clone(cfg.Muster), "serve"), log: log, ready: healthy("http://" + address)}
		p.env = append(os.Environ(), "DATABASE_URL="+c.DatabaseURL, "MUSTER_DATA_DIR="+c.shared, "MUSTER_LISTEN="+address,
			"MUSTER_ADMIN_TOKEN="+c.Token, "MUSTER_NATS_URL="+c.NATSURL, "MUSTER_GRACE=3s")
		p.env = append(p.env, cfg.Env...)
		c.Instances = append(c.Instances, p)
		// One after the other: the first one makes the keys that both use.
		if err := p.Start(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// waitForJetStream returns once a stream could have a replica on every node.
func (c *Cluster) waitForJetStream(ctx context.Context) error {
	conn, err := nats.Connect(c.NATSURL, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	const probe = "CLUSTER_PROBE"
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err = js.CreateStream(try, jetstream.StreamConfig{Name: probe, Subjects: []string{"cluster.probe"}, Storage: jetstream.MemoryStorage, Replicas: len(c.Nodes)})
		if err == nil {
			err = js.DeleteStream(try, probe)
		}
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("cluster: JetStream does not get ready: %w", err)
		}
		for _, p := range c.Nodes {
			select {
			case <-p.ended:
				return fmt.Errorf("%w: %s", errEnded, p.Name)
			default:
			}
		}
		pause(ctx)
	}
}

// Stop ends everything in order; a database that Start started, last.
func (c *Cluster) Stop() {
	for _, list := range [][]*Process{c.Instances, c.Nodes} {
		var all sync.WaitGroup
		for _, p := range list {
			all.Go(p.Stop)
		}
		all.Wait()
	}
	if c.database != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = c.database.Stop(ctx)
	}
}

// Processes are all of them.
func (c *Cluster) Processes() []*Process { return append(slices.Clone(c.Nodes), c.Instances...) }

// Start starts the process and returns once it works.
func (p *Process) Start(ctx context.Context) error {
	if err := p.begin(); err != nil {
		return err
	}
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := p.ready(try)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%w: %s", errEnded, p.Name)
		default:
		}
		if ctx.Err() != nil {
			return fmt.Errorf("cluster: %s does not get ready: %w", p.Name, err)
		}
		pause(ctx)
	}
}

func (p *Process) begin() error {
	p.cmd = exec.Command(p.command[0], p.command[1:]...)
	p.cmd.Env = p.env
	out := &prefixed{name: p.Name, w: p.log}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	tie(p.cmd.SysProcAttr)
	stdin, err := p.cmd.StdinPipe() // a node ends when it is closed
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("cluster: %s: %w", p.Name, err)
	}
	p.stdin, p.ended = stdin, make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		err := cmd.Wait()
		fmt.Fprintf(p.log, "%s has ended: %v\n", p.Name, errText(err))
		close(ended)
	}(p.cmd, p.ended)
	return nil
}

func errText(err error) string {
	if err == nil {
		return "in order"
	}
	return err.Error()
}

// PID is the process's id, 0 when it has not been started.
func (p *Process) PID() int {
	if p.cmd == nil || p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Kill is kill -9. Start starts it again.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Stop asks the process to end, and kills it when it does not.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

func (p *Process) end(sig syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	_ = p.stdin.Close()
	p.cmd = nil
}

func healthy(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	}
}

func pause(ctx context.Context) {
	t := time.NewTimer(20 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// ports returns n that are free.
func ports(n int) ([]int, error) {
	var open []net.Listener
	defer func() {
		for _, l := range open {
			_ = l.Close()
		}
	}()
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		open = append(open, l)
		out = append(out, l.Addr().(*net.TCPAddr).Port) //nolint:errcheck // it listens on TCP
	}
	return out, nil
}

// lines lets several processes write to one place.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// prefixed writes whole lines with a name before each. Only the process's
// output uses it.
type prefixed struct {
	name string
	w    io.Writer
	rest []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, ok := strings.Cut(string(p.rest), "\n")
		if !ok {
			return len(b), nil
		}
		p.rest = []byte(rest)
		if line != "" {
			fmt.Fprintf(p.w, "%s: %s\n", p.name, line)
		}
	}
}
