package filelock

import (
	"path/filepath"
	"testing"
)

func TestLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	must := func(l *Lock, err error) *Lock {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	try := func(want bool) {
		t.Helper()
		l, ok, err := TryExclusive(path)
		if err != nil || ok != want {
			t.Fatalf("TryExclusive = %v, %v; want %v", ok, err, want)
		}
		if ok {
			must(l, l.Unlock())
		}
	}
	a := must(Shared(path))
	b := must(Shared(path))
	try(false)
	must(a, a.Unlock())
	try(false)
	must(b, b.Unlock())
	try(true)
	c := must(Exclusive(path))
	try(false)
	must(c, c.Unlock())
	try(true)
}
