package importer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// spoolMemory is how many bytes of answers wait in memory; beyond it they wait
// on disk.
const spoolMemory = 256 << 10

// spool takes answers in without ever waiting for whoever reads them, and hands
// them on in order. What the reader is too slow for waits in a temporary file
// that has no name any more, encrypted with a key that is nowhere but in memory:
// answers may hold links that let people in.
//
// One goroutine writes and another one runs drain.
type spool struct {
	dir string
	out io.Writer

	mu     sync.Mutex    // guards what follows
	filled *sync.Cond    // something to hand on, or closed, or failed
	memory []byte        // what comes before the file's content
	file   *os.File      // nil while everything fits into memory
	seal   cipher.Stream // encrypts what is written to the file
	unseal cipher.Stream // decrypts what is read from it
	wrote  int64         // bytes written to the file
	read   int64         // bytes read from it
	closed bool
	err    error // why nothing can be handed on any more
}

func newSpool(dir string, out io.Writer) *spool {
	s := &spool{dir: dir, out: out}
	s.filled = sync.NewCond(&s.mu)
	return s
}

// write takes b in. It fails when the reader has gone or the disk is full.
func (s *spool) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if s.file == nil && len(s.memory)+len(b) <= spoolMemory {
		s.memory = append(s.memory, b...)
		s.filled.Signal()
		return nil
	}
	if s.file == nil {
		if s.err = s.open(); s.err != nil {
			s.filled.Signal()
			return s.err
		}
	}
	sealed := make([]byte, len(b))
	s.seal.XORKeyStream(sealed, b)
	n, err := s.file.WriteAt(sealed, s.wrote)
	s.wrote += int64(n)
	if err != nil {
		s.err = fmt.Errorf("keeping answers on disk: %w", err)
	}
	s.filled.Signal()
	return s.err
}

// open makes the file, and takes its name away.
func (s *spool) open() error {
	f, err := os.CreateTemp(s.dir, "muster-answers-") // mode 0600
	if err != nil {
		return fmt.Errorf("keeping answers on disk: %w", err)
	}
	// Where a file in use keeps its name, close removes it.
	_ = os.Remove(f.Name())
	var key [32]byte
	var iv [aes.BlockSize]byte
	rand.Read(key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return err
	}
	s.seal, s.unseal = cipher.NewCTR(block, iv[:]), cipher.NewCTR(block, iv[:])
	s.file, s.wrote, s.read = f, 0, 0
	return nil
}

// close says that nothing more comes; drain ends once it has handed on the rest.
func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.filled.Broadcast()
}

// drain hands everything on to the writer until close, or until that fails.
func (s *spool) drain() error {
	buf := make([]byte, spoolMemory)
	for {
		n, err := s.next(buf)
		if n > 0 && err == nil {
			_, err = s.out.Write(buf[:n])
		}
		if errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			continue
		}
		s.mu.Lock()
		if s.err == nil {
			s.err = err
		}
		if s.file != nil {
			s.file.Close()
			_ = os.Remove(s.file.Name())
			s.file = nil
		}
		s.mu.Unlock()
		return err
	}
}

// next waits for something to hand on and copies it to buf; io.EOF is the end.
func (s *spool) next(buf []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.err != nil:
			return 0, s.err
		case len(s.memory) > 0:
			n := copy(buf, s.memory)
			rest := copy(s.memory, s.memory[n:])
			s.memory = s.memory[:rest]
			return n, nil
		case s.file != nil && s.read < s.wrote:
			n := int(min(int64(len(buf)), s.wrote-s.read))
			if _, err := s.file.ReadAt(buf[:n], s.read); err != nil {
				return 0, fmt.Errorf("reading answers back: %w", err)
			}
			s.unseal.XORKeyStream(buf[:n], buf[:n])
			s.read += int64(n)
			return n, nil
		case s.file != nil:
			// Caught up: the disk is given back.
			s.file.Close()
			_ = os.Remove(s.file.Name())
			s.file = nil
		case s.closed:
			return 0, io.EOF
		default:
			s.filled.Wait()
		}
	}
}
