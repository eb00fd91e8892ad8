package password

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestHash(t *testing.T) {
	encoded, err := Hash(strings.NewReader("synthetic-salt16 and more"), golden)
	if err != nil {
		t.Fatal(err)
	}
	// printf Migrate-Me-42 | argon2 synthetic-salt16 -id -t 2 -k 19456 -p 1 -l 32 -e
	if want := "$argon2id$v=19$m=19456,t=2,p=1$c3ludGhldGljLXNhbHQxNg$zfrtvN76AFoUh0HddFgUubBxf1lexiHwzxf+opZlNEg"; encoded != want {
		t.Errorf("Hash = %s, want %s", encoded, want)
	}
	if f, err := Recognise(encoded); err != nil || f.Name != "argon2id" || f.Weak() {
		t.Errorf("the house's own hash is %+v, %v", f, err)
	}
	if NeedsRehash(encoded) {
		t.Error("the house's own hash needs a rehash")
	}
	if ok, err := Verify(t.Context(), encoded, golden, nil); !ok || err != nil {
		t.Errorf("Verify = %v, %v", ok, err)
	}
	for _, bad := range []string{"", strings.Repeat("x", MaxPlain+1), "with\x00nul"} {
		if got, err := Hash(rand.Reader, bad); err == nil {
			t.Errorf("Hash of %d bytes = %s, want an error", len(bad), got)
		}
	}
	if _, err := Hash(bytes.NewReader(make([]byte, 15)), golden); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Hash with too little randomness: %v", err)
	}
}

func TestNeedsRehash(t *testing.T) {
	own := func(change ...string) string {
		return strings.NewReplacer(change...).Replace("$argon2id$v=19$m=19456,t=2,p=1$" + salt16 + "$" + sum32)
	}
	if NeedsRehash(own()) {
		t.Error("the house's parameters need a rehash")
	}
	for _, encoded := range []string{
		own("argon2id", "argon2i"), own("v=19", "v=16"), own("19456", "65536"), own("t=2", "t=3"), own("p=1", "p=2"),
		own(salt16, "c2hvcnQ"), own(sum32, salt16), "{ARGON2}" + own("t=2", "t=1"), "$muster-pepper$job$" + own(), plainHash, "garbage",
	} {
		if !NeedsRehash(encoded) {
			t.Errorf("no rehash for %s", encoded)
		}
	}
}

// gate is a source of randomness that holds every reader until it is opened,
// so that a test can look at computations under way.
type gate struct {
	in, most atomic.Int64
	entered  chan struct{}
	open     chan struct{}
}

func (g *gate) Read(p []byte) (int, error) {
	n := g.in.Add(1)
	defer g.in.Add(-1)
	for {
		most := g.most.Load()
		if n <= most || g.most.CompareAndSwap(most, n) {
			break
		}
	}
	g.entered <- struct{}{}
	<-g.open
	return len(p), nil
}

func TestPoolBoundsWork(t *testing.T) {
	g := &gate{entered: make(chan struct{}, 8), open: make(chan struct{})}
	pool := NewPool(2, g)
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			if _, err := pool.Hash(t.Context(), golden); err != nil {
				t.Error(err)
			}
		})
	}
	<-g.entered
	<-g.entered

	if pool.slots.TryAcquire(1) {
		t.Fatal("two computations are under way, and a slot is free")
	}
	// Both slots are taken: whoever waits is let go by its context, and work
	// that is refused does not wait at all.
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, 1)
	go func() {
		_, err := pool.Verify(ctx, plainHash, golden, nil)
		waiting <- err
	}()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with an ended context: %v", err)
	}
	if _, err := pool.Hash(ctx, golden); !errors.Is(err, context.Canceled) {
		t.Errorf("coming with an ended context: %v", err)
	}
	if _, err := pool.Verify(t.Context(), bombs[0].outside, golden, nil); !errors.Is(err, ErrTooCostly) {
		t.Errorf("a bomb at a full pool: %v", err)
	}
	close(g.open)
	done.Wait()
	if most := g.most.Load(); most != 2 {
		t.Errorf("%d computations at a time, want 2", most)
	}
	if ok, err := pool.Verify(t.Context(), "md5$$d5c9a37ac8e88842d0bfce3b6802dd19", golden, nil); !ok || err != nil {
		t.Errorf("Verify after the crowd = %v, %v", ok, err)
	}
}

// TestPoolRunsBigOnesAlone: a hash that takes much memory has all slots.
func TestPoolRunsBigOnesAlone(t *testing.T) {
	g := &gate{entered: make(chan struct{}, 1), open: make(chan struct{})}
	pool := NewPool(2, g)
	var done sync.WaitGroup
	done.Go(func() {
		if _, err := pool.Hash(t.Context(), golden); err != nil {
			t.Error(err)
		}
	})
	<-g.entered
	// One slot is free: enough for a small one, not for a big one.
	if _, err := pool.Verify(t.Context(), "md5$$d5c9a37ac8e88842d0bfce3b6802dd19", golden, nil); err != nil {
		t.Errorf("a small one beside the first: %v", err)
	}
	big := "$argon2id$v=19$m=1048576,t=1,p=1$" + salt16 + "$" + sum32
	d, err := parse(big)
	if err != nil {
		t.Fatal(err)
	}
	if w := pool.weight(&d); w != 2 {
		t.Errorf("a hash of 1 GiB takes %d slots of 2", w)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, 1)
	go func() {
		_, err := pool.Verify(ctx, big, golden, nil)
		waiting <- err
	}()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("the big one did not wait: %v", err)
	}
	close(g.open)
	done.Wait()
}
