//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package pgserver

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent does nothing: there is no such signal here, or not one that
// survives a change of user. The next start stops the orphan.
func dieWithParent(*syscall.SysProcAttr) {}

// runsPostgres reports whether process pid is a PostgreSQL server that was
// started on the data in dir. A zombie does not count.
func runsPostgres(pid int, dir string) bool {
	out, err := exec.Command("ps", "-ww", "-o", "stat=,command=", "-p", strconv.Itoa(pid)).Output()
	line := strings.TrimSpace(string(out))
	return err == nil && !strings.HasPrefix(line, "Z") &&
		strings.Contains(line, "postgres") && strings.Contains(line, dir)
}

// postgresProcesses returns nothing: what a process works on cannot be told
// here once its server is gone.
func postgresProcesses(string) []int { return nil }
