package importer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
)

// gate is a reader who takes nothing until it is opened.
type gate struct {
	open chan struct{}
	got  bytes.Buffer
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	return g.got.Write(b)
}

func TestSpoolHandsOnInOrder(t *testing.T) {
	dir := t.TempDir()
	g := &gate{open: make(chan struct{})}
	s := newSpool(dir, g)
	drained := make(chan error)
	go func() { drained <- s.drain() }()
	var want bytes.Buffer
	put := func(from, to int) {
		for i := from; i < to; i++ {
			line := fmt.Appendf(nil, "canary line %d %s\n", i, bytes.Repeat([]byte{'x'}, i%700))
			want.Write(line)
			if err := s.write(line); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(0, 5000) // more than waits in memory, while nobody reads
	s.mu.Lock()
	file := s.file
	s.mu.Unlock()
	if file == nil {
		t.Fatal("nothing is on disk")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("the file has a name: %v %v", names, err)
	}
	if info, err := file.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	raw := make([]byte, 4096)
	if _, err := file.ReadAt(raw, 0); err != nil || bytes.Contains(raw, []byte("canary")) {
		t.Errorf("the file is readable: %v", err)
	}
	close(g.open)
	put(5000, 9000) // while it is being read
	s.close()
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(g.got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes came out, %d went in", g.got.Len(), want.Len())
	}
}

type goneReader struct{}

func (goneReader) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestSpoolSaysThatItsReaderIsGone(t *testing.T) {
	s := newSpool(t.TempDir(), goneReader{})
	if err := s.write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.drain(); err == nil {
		t.Error("drain has no error")
	}
	if err := s.write([]byte("x")); err == nil {
		t.Error("a write goes on")
	}
}
