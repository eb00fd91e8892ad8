// Package filelock locks files between processes of one machine.
//
// The locks are flock(2)'s: they belong to the open file, so the kernel takes
// them back when the process ends in whatever way, kill -9 included. The file
// itself means nothing and is never removed: a lock on a file that somebody
// else has unlinked would guard nothing.
package filelock

import (
	"errors"
	"os"
)

// ErrUnsupported is the error of all functions on systems without flock.
var ErrUnsupported = errors.New("filelock: this system has no flock")

// Lock is a lock that is held.
type Lock struct{ file *os.File }

// Unlock gives the lock back.
func (l *Lock) Unlock() error { return l.file.Close() }

// Shared waits for a lock on the file at path that any number of processes may
// share. It makes the file, with mode 0600, where there is none.
func Shared(path string) (*Lock, error) {
	l, _, err := take(path, true, true)
	return l, err
}

// Exclusive waits for a lock on the file at path that nobody else has.
func Exclusive(path string) (*Lock, error) {
	l, _, err := take(path, false, true)
	return l, err
}

// TryExclusive is Exclusive without the waiting: it reports false when
// somebody else has a lock on the file.
func TryExclusive(path string) (*Lock, bool, error) {
	return take(path, false, false)
}

func take(path string, shared, wait bool) (*Lock, bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	ok, err := flock(f, shared, wait)
	if err != nil || !ok {
		_ = f.Close()
		return nil, false, err
	}
	return &Lock{f}, true, nil
}

// Write replaces what the locked file says, for people who wonder who has it.
func (l *Lock) Write(text string) error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(text), 0)
	return err
}
