package hostile

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

func TestMain(m *testing.M) {
	Child()
	os.Exit(m.Run())
}

// lines hands what the harness says to the test.
type lines struct{ t *testing.T }

func (l lines) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// TestTheLogHolds tries the true log for some seconds; make test/hostile does
// it for longer.
func TestTheLogHolds(t *testing.T) {
	outcomes, err := Run(t.Context(), Config{Variants: []Variant{True}, Duration: 6 * time.Second, Round: 3 * time.Second, Out: lines{t}})
	if err != nil {
		t.Fatal(err)
	}
	o := outcomes[0]
	if o.Failure != nil {
		t.Fatalf("seed %d, round %d: %v; records are kept in %s", o.Seed, o.Failure.Round, o.Failure, o.Failure.Kept)
	}
	if o.Acked < 100 || o.Read < 2*o.Acked || o.Troubles["primary killed"] == 0 {
		t.Errorf("too little has happened: %+v", o)
	}
}

// raceDetector says whether this test was built with it.
var raceDetector bool

// TestMutantsAreCaught shows for a few wrong logs what make test/mutants shows
// for all: that the harness finds a fault where there is one.
func TestMutantsAreCaught(t *testing.T) {
	program := filepath.Join(t.TempDir(), "hostile")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	args := []string{"build", "-tags", "mutant", "-o", program, "./run"}
	if raceDetector {
		// So it shares with this test what is compiled.
		args = slices.Insert(args, 1, "-race")
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.CommandContext(ctx, program, "-gentle", "-duration", "60s", "-round", "2s", "-logs", "serial,one-statement,swallowed")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte("caught after")); n != 3 {
		t.Fatalf("%d of 3 are caught:\n%s", n, out)
	}
	t.Logf("%s", out)
}

func TestSightings(t *testing.T) {
	want := sighting{position: 7, id: ulid.ULID{1, 2, 3}, sequence: 9, stream: "user with blanks"}
	got, err := parseSighting(strings.TrimSuffix(string(want.appendTo(nil)), "\n"))
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	path := filepath.Join(t.TempDir(), "record")
	if err := os.WriteFile(path, append(want.appendTo(nil), "8 half a li"...), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	end, err := readLines(path, func(string) error { n++; return nil })
	if err != nil || n != 1 || int(end) != len(want.appendTo(nil)) {
		t.Errorf("%d lines to %d, %v", n, end, err)
	}
}
