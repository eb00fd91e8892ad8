//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package pgserver

import (
	"errors"
	"io/fs"
	"os/exec"
	"syscall"
)

// Start refuses on these systems before it comes to anything below.
const supported = false

type account struct{ name string }

func unprivileged() (*account, error)       { return nil, errors.ErrUnsupported }
func owner(fs.FileInfo) (*account, error)   { return nil, errors.ErrUnsupported }
func (a *account) give(string) error        { return errors.ErrUnsupported }
func (a *account) runAs(*exec.Cmd)          {}
func signal(int, syscall.Signal) error      { return errors.ErrUnsupported }
func exists(int) bool                       { return false }
func postgresProcesses(string) []int        { return nil }
func runsPostgres(pid int, dir string) bool { return false }
