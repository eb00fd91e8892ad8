package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/muster-id/muster/internal/chaos"
	"github.com/muster-id/muster/internal/logtest"
	"github.com/muster-id/muster/internal/pgtest"
)

// testLines hands what is written to the test.
type testLines struct{ t *testing.T }

func (l testLines) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// TestChaos is a short form of `make test/chaos`: one JetStream node, some
// thousand events.
func TestChaos(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var log logtest.Log
	rep, err := chaos.Run(t.Context(), chaos.Config{
		Dir: t.TempDir(), Muster: []string{self}, Env: []string{"MUSTER_TEST_BE_MUSTER=1"}, DatabaseURL: pgtest.New(t),
		Nodes: 1, Events: 6000, Pause: 100 * time.Millisecond, Settle: time.Minute, Out: testLines{t}, Log: &log,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if len(rep.Wrong) > 0 {
		t.Errorf("wrong: %s", strings.Join(rep.Wrong, "\n"))
	}
	if rep.People < 1000 || len(rep.Troubles) == 0 {
		t.Errorf("too little has happened: %+v", rep)
	}
}
