// Command run starts a small installation on this machine and prints where it
// listens: three JetStream nodes, two instances of Muster, one PostgreSQL.
// Ctrl-C ends all of it; kill any one of the others, and the rest goes on.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/muster-id/muster/internal/cluster"
)

func main() {
	cluster.Child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	muster := flag.String("muster", "bin/muster", "the muster binary")
	dir := flag.String("dir", ".muster/cluster", "where everything is kept")
	port := flag.Int("port", 8080, "port of the first instance; the second has the next one")
	natsPort := flag.Int("nats-port", 4222, "port of the first JetStream node; the others have the next ones")
	verbose := flag.Bool("v", false, "print what the processes print")
	flag.Parse()
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return err
	}
	cfg := cluster.Config{
		Dir: *dir, Muster: []string{*muster}, DatabaseURL: os.Getenv("DATABASE_URL"),
		HTTPPorts: []int{*port, *port + 1}, NATSPorts: []int{*natsPort, *natsPort + 1, *natsPort + 2},
	}
	if *verbose {
		cfg.Log = os.Stderr
	}
	started := time.Now()
	fmt.Println("starting PostgreSQL, three JetStream nodes and two instances of Muster …")
	c, err := cluster.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Stop()
	fmt.Printf("all of it works, after %.1f s\n\n", time.Since(started).Seconds())
	for _, p := range c.Processes() {
		fmt.Printf("  %-10s %-28s kill -9 %d\n", p.Name, p.URL, p.PID())
	}
	fmt.Printf(`
The administrator's token is %s; the relay's stream is MUSTER.
Import somebody through either instance:

curl -sS %s/management/v1/users/human/_import -H "Authorization: Bearer %s" \
  -d '{"userName":"minnie","profile":{"firstName":"Minnie","lastName":"Mouse"},"email":{"email":"minnie@example.com"}}'

Kill any one of them, and imports and consumers go on. Ctrl-C ends all.
`, c.Token, c.Instances[1].URL, c.Token)
	<-ctx.Done()
	fmt.Println("\nending")
	return nil
}
