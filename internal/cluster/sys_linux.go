package cluster

import "syscall"

// tie has the kernel end a process with the one that started it.
func tie(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }
