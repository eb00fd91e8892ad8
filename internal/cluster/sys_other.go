//go:build !linux

package cluster

import "syscall"

// tie does what it can where the kernel does not help: nothing.
func tie(*syscall.SysProcAttr) {}
